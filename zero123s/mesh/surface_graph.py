"""Smoothing over a surface: the graph of a mesh's edges, in which vertices at one position are one node."""

import numpy as np
from jaxtyping import Float, Int


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
        from scipy.sparse import diags, identity

        step = 0.5 * (diags(1 / np.maximum(self.degree, 1)) @ self.adjacency + identity(len(self.degree)))
        weight = np.ones(len(values)) if weights is None else weights
        packed = np.concatenate([values * weight[:, None], weight[:, None]], axis=1)[self.vertex_of_node]
        for _ in range(max(1, round(4 * (sigma / self.mean_length) ** 2))):
            packed = step @ packed
        return (packed[:, :-1] / np.maximum(packed[:, -1:], 1e-12))[self.node_of_vertex]
