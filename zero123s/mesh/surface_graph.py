"""Smoothing over a surface: the graph of a mesh's edges, in which vertices at one position are one node."""

import numpy as np
from jaxtyping import Float, Int

NEGLECTED = 1e-6
"""Share of the weights that smoothing leaves out."""


class SurfaceGraph:
    """A mesh's vertices and edges, vertices at one position joined.

    Args:
        vertices: V 3.
        faces: F 3.
    """

    def __init__(self, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> None:
        from scipy.sparse import coo_matrix

        nodes, self.vertex_of_node, inverse = np.unique(
            np.asarray(vertices, np.float32), axis=0, return_index=True, return_inverse=True
        )
        self.node_of_vertex = inverse.reshape(-1)
        f = self.node_of_vertex[faces]
        edges = np.unique(np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1), axis=0)
        edges = edges[edges[:, 0] != edges[:, 1]]
        lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
        self.mean_length = float(lengths.mean()) if len(lengths) else 1.0
        i, j = np.concatenate([edges, edges[:, ::-1]]).T
        self.adjacency = coo_matrix((np.ones(len(i)), (i, j)), (len(nodes), len(nodes))).tocsr()
        self.degree = np.asarray(self.adjacency.sum(1)).ravel()

    def smooth(
        self, values: Float[np.ndarray, "V C"], sigma: float, weights: Float[np.ndarray, "V"] | None = None
    ) -> Float[np.ndarray, "V C"]:
        """Smooth values over the surface by diffusion: close to a Gaussian filter of width `sigma`.

        Args:
            values: V C.
            sigma: standard deviation in the unit of the vertices.
            weights: V, >= 0; None = all 1.

        Returns:
            V C; 0 where all weights around are 0.

        Example:
            >>> import numpy as np
            >>> from zero123s.mesh.surface_graph import SurfaceGraph
            >>> square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
            >>> graph = SurfaceGraph(square, np.array([[0, 1, 2], [0, 2, 3]]))
            >>> graph.smooth(np.array([[0.0], [0.0], [1.0], [1.0]]), sigma=5.0).round(2).ravel().tolist()
            [0.5, 0.5, 0.5, 0.5]
        """
        weight = np.ones(len(values)) if weights is None else weights
        packed = np.concatenate([values * weight[:, None], weight[:, None]], axis=1)[self.vertex_of_node]
        packed = self._diffuse(packed, max(1, round(4 * (sigma / self.mean_length) ** 2)))
        return (packed[:, :-1] / np.maximum(packed[:, -1:], 1e-12))[self.node_of_vertex]

    def _diffuse(self, values: Float[np.ndarray, "N C"], n_steps: int) -> Float[np.ndarray, "N C"]:
        """Return ((1 + W) / 2)^n_steps applied to the values, W the mean over a node's neighbours.

        With W = cos(a) that is cos(a / 2)^(2 n), whose cosine series has binomial coefficients: a sum of Chebyshev
        polynomials of W, of which some 4 sqrt(n) count, instead of n products.
        """
        from scipy.sparse import diags
        from scipy.stats import binom

        mean = diags(1 / np.maximum(self.degree, 1)) @ self.adjacency
        share = binom.pmf(np.arange(n_steps, -1, -1), 2 * n_steps, 0.5)
        coefficients = np.concatenate([share[:1], 2 * share[1:]])
        n_terms = 1 + int(np.searchsorted(coefficients.cumsum(), 1 - NEGLECTED))
        before, polynomial = values, mean @ values
        total = coefficients[0] * before + coefficients[1] * polynomial
        for coefficient in coefficients[2:n_terms]:
            before, polynomial = polynomial, 2 * (mean @ polynomial) - before
            total += coefficient * polynomial
        return total
