"""Antialiasing at silhouettes, which gives images of a mesh gradients with respect to its outline.

The idea is nvdiffrast's (Laine et al. 2020): where two neighbouring pixels lie on the two sides of a silhouette, the
place at which the silhouette passes between their centres decides how much of the one's colour belongs to the other.
There, the edge is searched in the triangle visible at the nearer pixel; here among all silhouette edges of the mesh,
because a marched mesh has triangles smaller than a pixel.

Example:
    >>> import torch
    >>> from zero123s.ops.rasterization import find_silhouettes, mesh_edges
    >>> # A square from u = 1.2 to 3 and v = 0 to 4, before nothing, in an image of 4 x 4 pixels.
    >>> screen = torch.tensor([[[1.2, 0, 1], [3.0, 0, 1], [3.0, 4, 1], [1.2, 4, 1]]])
    >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    >>> depth = torch.full((1, 4, 4), torch.inf)
    >>> depth[..., 1:3] = 1.0  # the pixel centres at u = 1.5 and 2.5 are covered
    >>> silhouettes = find_silhouettes(screen, mesh_edges(faces, 4), faces, depth)
    >>> mask = silhouettes.antialias(torch.isfinite(depth).float()[..., None])
    >>> mask[0, 1, :, 0]  # 1.8 pixels in all, as wide as the square
    tensor([0.0000, 0.8000, 1.0000, 0.0000])
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

FROM_LEFT, FROM_RIGHT, FROM_ABOVE, FROM_BELOW = range(4)


@dataclass(frozen=True)
class MeshEdges:
    """The edges of a mesh and up to two faces at each."""

    ends: Int[Tensor, "E 2"]
    faces: Int[Tensor, "E 2"]
    """The second is -1 at the border of an open mesh; of more than two faces at an edge, two are kept."""
    third: Int[Tensor, "E 2"]
    """The corner of each of the two faces that is not on the edge."""

    @property
    def closed(self) -> bool:
        """Whether no edge is a border."""
        return not bool((self.faces[:, 1] < 0).any())


def mesh_edges(faces: Int[Tensor, "F 3"], n_vertices: int) -> MeshEdges:
    """Return every edge of a mesh once.

    Args:
        faces: F 3, vertex numbers.
        n_vertices: of the mesh.

    Returns:
        The edges, sorted by their vertex numbers.

    Example:
        >>> import torch
        >>> from zero123s.ops.rasterization import mesh_edges
        >>> edges = mesh_edges(torch.tensor([[0, 1, 2], [2, 1, 3]]), n_vertices=4)
        >>> edges.ends.tolist(), (edges.faces >= 0).sum(1).tolist(), edges.closed
        ([[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]], [1, 1, 2, 1, 1], False)
    """
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(-1).values
    third = torch.cat([faces[:, 2], faces[:, 0], faces[:, 1]])
    face = torch.arange(len(faces), device=faces.device).repeat(3)
    key, order = torch.sort(ends[:, 0] * n_vertices + ends[:, 1], stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    at = first.nonzero()[:, 0]
    has_second = torch.cat([~first, ~first.new_ones(1)])[at + 1]
    second = torch.where(has_second, at + 1, at)
    at, second = order[at], order[second]
    return MeshEdges(
        ends[at],
        torch.stack([face[at], torch.where(has_second, face[second], -1)], dim=-1),
        torch.stack([third[at], third[second]], dim=-1),
    )


@dataclass(frozen=True)
class Silhouettes:
    """How much of each pixel's area belongs to the content of its four neighbours."""

    shares: Float[Tensor, "4 B H W"]
    """Of the left, right, upper and lower neighbour, each in [0, 1], with a sum of at most 1; the rest is its own."""

    @property
    def own(self) -> Float[Tensor, "B H W"]:
        """The share that each pixel keeps of the content at its centre."""
        return 1 - self.shares.sum(0)

    def antialias(self, image: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """Blend the silhouettes of an image of the mesh; differentiable in the image and in the vertices.

        Args:
            image: B H W C, rendered without antialiasing.

        Returns:
            B H W C.
        """
        blended = self.own[..., None] * image
        for direction, share in enumerate(self.shares):
            blended = blended + share[..., None] * neighbours(image, direction)
        return blended


def neighbours(image: Tensor, direction: int) -> Tensor:
    """Return an image moved so that each pixel holds its left, right, upper or lower neighbour.

    Pixels without one get the image's other border; no share belongs to them.

    Args:
        image: B H W ....
        direction: FROM_LEFT, FROM_RIGHT, FROM_ABOVE or FROM_BELOW.

    Returns:
        The moved image, of the same shape.
    """
    shift, axis = {FROM_LEFT: (1, 2), FROM_RIGHT: (-1, 2), FROM_ABOVE: (1, 1), FROM_BELOW: (-1, 1)}[direction]
    return image.roll(shift, axis)


def find_silhouettes(
    screen: Float[Tensor, "B V 3"], edges: MeshEdges, faces: Int[Tensor, "F 3"], depth: Float[Tensor, "B H W"]
) -> Silhouettes:
    """Return the blends at all visible silhouettes; differentiable in `screen`.

    A silhouette edge has one face, or two of which one faces away. It counts between two pixel centres where its own
    side is visible and the other side shows what lies further back or nothing. An edge counts between horizontal
    neighbours if it is rather steep, between vertical ones otherwise: then the sum over the pixels is the area.

    Args:
        screen: B V 3, vertices in screen coordinates.
        edges: of the mesh, see `mesh_edges`.
        faces: F 3, of the mesh.
        depth: B H W, of the visible points, along the viewing axis; inf for nothing.

    Returns:
        The share of every pixel that belongs to each of its neighbours.
    """
    incoming = []
    for swap in (False, True):
        depths = depth.mT if swap else depth
        at = screen[..., [1, 0, 2]] if swap else screen
        both = [_between_columns(at[view], edges, faces, depths[view], swap) for view in range(len(screen))]
        pair = torch.stack(both, dim=1) if both else depth.new_zeros(2, *depths.shape)
        incoming.append(pair.mT if swap else pair)
    shares = torch.cat(incoming)
    # Two silhouettes in one pixel are taken as crossing at right angles, for which this is exact.
    taken = 1 - (1 - shares).prod(0)
    return Silhouettes(shares * (taken / shares.sum(0).clamp_min(1e-12)))


def _between_columns(
    screen: Float[Tensor, "V 3"],
    edges: MeshEdges,
    faces: Int[Tensor, "F 3"],
    depth: Float[Tensor, "H W"],
    equal_slopes: bool,
) -> Float[Tensor, "2 H W"]:
    """Return the shares of each pixel of one view that belong to its left and its right neighbour.

    `equal_slopes`: whether an edge at exactly 45 degrees counts here.
    """
    height, width = depth.shape
    edge, row = _crossed_rows(screen.detach(), edges, faces, height, equal_slopes)
    a, b = screen[edges.ends[edge]].unbind(1)
    along = (row + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1])
    u = a[:, 0] + along * (b[:, 0] - a[:, 0])
    with torch.no_grad():
        z = 1 / ((1 - along) / a[:, 2] + along / b[:, 2])
        left = (u - 0.5).floor().long()
        c = screen[edges.third[edge, 0]]
        turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        inner_is_right = (turn < 0) == (b[:, 1] > a[:, 1])
        inside = (left >= 0) & (left + 1 < width)
        left = left.clamp(0, width - 2)
        inner, outer = left + inner_is_right.long(), left + (~inner_is_right).long()
        visible = inside & torch.isfinite(depth[row, inner]) & (depth[row, outer] > z)
    # How far the surface reaches from the centre of its pixel towards the next; at a fold, the furthest edge is visible.
    reach = torch.where(inner_is_right, inner + 0.5 - u, u - inner - 0.5)[visible]
    row, inner, outer, inner_is_right = row[visible], inner[visible], outer[visible], inner_is_right[visible]
    best = _furthest(reach.detach(), (row * width + inner) * 2 + inner_is_right, height * width * 2)
    reach, row, inner, outer, inner_is_right = (t[best] for t in (reach, row, inner, outer, inner_is_right))
    grows = reach >= 0.5
    pixel = row * width + torch.where(grows, outer, inner)
    from_right = inner_is_right == grows
    result = reach.new_zeros(2 * height * width)
    return result.index_add(0, from_right * (height * width) + pixel, (reach - 0.5).abs()).reshape(2, height, width)


def _crossed_rows(
    screen: Float[Tensor, "V 3"], edges: MeshEdges, faces: Int[Tensor, "F 3"], height: int, equal_slopes: bool
) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
    """Return the pairs of steep silhouette edges and rows of pixel centres that they cross."""
    a, b, c = screen[faces][..., :2].unbind(1)
    facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) > 0
    one, two = edges.faces.unbind(-1)
    silhouette = ((two < 0) | (facing[one] != facing[two.clamp_min(0)])).nonzero()[:, 0]
    ends = screen[edges.ends[silhouette]]
    across, down, _ = (ends[:, 1] - ends[:, 0]).abs().unbind(-1)
    steep = (down >= across) if equal_slopes else (down > across)
    steep &= (ends[..., 2] > 0).all(-1)
    silhouette, v = silhouette[steep], ends[steep][..., 1]
    # Half open, so that a row through a vertex is crossed once.
    first = (v.amin(-1) - 0.5).ceil().clamp(0, height).long()
    n = ((v.amax(-1) - 0.5).ceil().clamp(0, height).long() - first).clamp_min(0)
    start = (n.cumsum(0) - n).repeat_interleave(n)
    row = first.repeat_interleave(n) + torch.arange(len(start), device=n.device) - start
    return silhouette.repeat_interleave(n), row


def _furthest(reach: Float[Tensor, "K"], key: Int[Tensor, "K"], n_keys: int) -> Int[Tensor, "U"]:
    """Return, for every key that occurs, the index of its largest value, the first of equal ones."""
    most = reach.new_full((n_keys,), -torch.inf).scatter_reduce(0, key, reach, "amax")
    index = (reach == most[key]).nonzero()[:, 0]
    first = torch.full((n_keys,), len(reach), device=key.device).scatter_reduce(0, key[index], index, "amin")
    return first[first < len(reach)]
