"""Triangle mesh operations: components, simplification, repair, normals and a health report."""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

Vertices = Float[np.ndarray, "V 3"]
Faces = Int[np.ndarray, "F 3"]


def face_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "F 3"]:
    """Compute area-weighted face normals.

    Args:
        vertices: V 3.
        faces: F 3, counter-clockwise seen from outside.

    Returns:
        F 3, with length twice the face's area.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.processing import face_normals
        >>> face_normals(np.array([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]])).tolist()
        [[0.0, 0.0, 2.0]]
    """
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "V 3"]:
    """Compute unit vertex normals, faces weighted by area.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        V 3; +z for a vertex without faces.
    """
    per_face = face_normals(vertices, faces)
    normals = np.zeros_like(vertices, dtype=np.float64)
    for i in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, i], per_face[:, axis], len(vertices))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-20, normals / np.maximum(length, 1e-20), [0.0, 0.0, 1.0])


def signed_volume(vertices: Vertices, faces: Faces) -> float:
    """Compute the volume that a closed mesh encloses.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        Negative if the faces are oriented inwards.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.processing import signed_volume
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> round(signed_volume(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])), 4)
        0.1667
    """
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def compact(vertices: Vertices, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Drop vertices that no face uses.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        The remaining vertices, and the faces with new indices.
    """
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3)


def _component_labels(n_vertices: int, faces: Faces) -> tuple[int, Int[np.ndarray, "V"]]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (n_vertices, n_vertices))
    return connected_components(graph, directed=False)


def remove_small_components(vertices: Vertices, faces: Faces, min_share: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Drop floaters and cavities: components with a small volume.

    Args:
        vertices: V 3.
        faces: F 3, closed.
        min_share: smallest absolute volume, relative to the largest component's.

    Returns:
        Vertices, faces and the number of components before.
    """
    if len(faces) == 0:
        return vertices, faces, 0
    n, labels = _component_labels(len(vertices), faces)
    of_face = labels[faces[:, 0]]
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    volume = np.bincount(of_face, np.einsum("ij,ij->i", a, np.cross(b, c)) / 6, n)
    present = np.unique(of_face)
    keep = volume >= min_share * volume.max() if volume.max() > 0 else np.ones(n, bool)
    dropped = int((~keep[present]).sum())
    return (*compact(vertices, faces[keep[of_face]]), dropped)


def simplify(vertices: Vertices, faces: Faces, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the number of faces by quadric edge collapse (Garland and Heckbert 1997), keeping the mesh closed.

    Args:
        vertices: V 3.
        faces: F 3, closed.
        max_faces: budget; slightly exceeded where the surface is too tangled.

    Returns:
        Vertices and faces.
    """
    import fast_simplification

    target = max_faces
    for _ in range(5):
        if len(faces) > target:
            share = 1.0 - target / len(faces)
            v, f = fast_simplification.simplify(
                np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32), share
            )
            vertices, faces = compact(v.astype(np.float64), f.astype(np.int64))
        vertices, faces = repair(vertices, faces)
        if len(faces) <= max_faces:
            break
        target -= len(faces) - max_faces  # covering holes took faces of its own
    return vertices, faces


def _edge_counts(faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0, return_counts=True)


def is_closed(faces: Faces) -> bool:
    """Tell whether every edge belongs to exactly two faces (watertight and edge-manifold).

    Args:
        faces: F 3.

    Returns:
        True if so.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.processing import is_closed
        >>> is_closed(np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])), is_closed(np.array([[0, 1, 2]]))
        (True, False)
    """
    return len(faces) > 0 and bool((_edge_counts(faces)[1] == 2).all())


def repair(vertices: Vertices, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Make a mesh closed and consistently oriented outwards: tangled faces are removed, holes covered.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        Vertices and faces.
    """
    for _ in range(3):
        if is_closed(faces) and has_consistent_winding(faces):
            break
        vertices, faces = _fill_holes(vertices, _without_overlaps(faces, len(vertices)))
    if len(faces) and signed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return compact(vertices, faces)


def _directed_edges(faces: Faces) -> np.ndarray:
    """Return 3F 2: the edges of each face as it is wound, corner by corner."""
    return np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)


def has_consistent_winding(faces: Faces) -> bool:
    """Tell whether no edge is traversed twice in one direction.

    Args:
        faces: F 3.

    Returns:
        True if so.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.processing import has_consistent_winding
        >>> has_consistent_winding(np.array([[0, 1, 2], [2, 1, 3]])), has_consistent_winding(np.array([[0, 1, 2], [1, 2, 3]]))
        (True, False)
    """
    edges = _directed_edges(faces)
    return len(np.unique(edges, axis=0)) == len(edges)


def _without_overlaps(faces: Faces, n_vertices: int) -> Int[np.ndarray, "K 3"]:
    """Drop faces until every edge has at most one face on each side."""
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    faces = faces[np.sort(first)]
    edges = _directed_edges(faces)
    _, at, count = np.unique(edges @ [n_vertices, 1], return_inverse=True, return_counts=True)
    _, at_any, count_any = np.unique(np.sort(edges, axis=1) @ [n_vertices, 1], return_inverse=True, return_counts=True)
    tangled = (count[at.reshape(-1)] > 1) | (count_any[at_any.reshape(-1)] > 2)
    return faces[~tangled.reshape(-1, 3).any(axis=1)]


def _hole_loops(faces: Faces) -> list[list[int]]:
    """Return the borders of all holes as rings of distinct vertices, wound as the missing faces would be."""
    edges = _directed_edges(faces)
    present = set(map(tuple, edges.tolist()))
    onward: dict[int, list[int]] = {}
    for a, b in sorted(present):
        if (b, a) not in present:
            onward.setdefault(b, []).append(a)
    loops = []
    for start in list(onward):
        while onward.get(start):
            path, place = [start], {start: 0}
            while onward.get(path[-1]):
                vertex = onward[path[-1]].pop()
                if vertex in place:  # a ring is complete; the path before it continues
                    loops.append(path[place[vertex] :])
                    for passed in path[place[vertex] + 1 :]:
                        del place[passed]
                    path = path[: place[vertex] + 1]
                else:
                    place[vertex] = len(path)
                    path.append(vertex)
    return loops


def _fill_holes(vertices: Vertices, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    new_vertices, new_faces = [vertices], [faces]
    n = len(vertices)
    for loop in _hole_loops(faces):
        if len(loop) == 3:
            new_faces.append(np.array([loop]))
            continue
        ring = np.array(loop)
        new_vertices.append(vertices[ring].mean(0, keepdims=True))
        new_faces.append(np.stack([ring, np.roll(ring, -1), np.full(len(ring), n)], -1))
        n += 1
    return np.concatenate(new_vertices), np.concatenate(new_faces)


@dataclass(frozen=True)
class MeshHealth:
    """Properties of a mesh that printers, game engines and simulators require."""

    vertices: int
    faces: int
    components: int
    watertight: bool
    """Every edge has exactly two faces."""
    manifold: bool
    """No edge has more than two faces."""
    winding_consistent: bool
    open_edges: int
    non_manifold_edges: int
    degenerate_faces: int
    volume: float
    area: float
    euler_number: int

    def summary(self) -> str:
        """Return a one-sentence summary.

        Returns:
            One sentence.
        """
        if self.watertight and self.winding_consistent:
            return f"The mesh is watertight and manifold ({self.faces} faces, {self.components} part(s))."
        return (
            f"The mesh is not watertight: {self.open_edges} open and {self.non_manifold_edges} non-manifold edges "
            f"among {self.faces} faces."
        )

    def as_dict(self) -> dict[str, float | int | bool]:
        """Return the measurements for JSON.

        Returns:
            Plain values by name.
        """
        return asdict(self)


def mesh_health(vertices: Vertices, faces: Faces) -> MeshHealth:
    """Measure a mesh as a solid; vertices that were split at texture seams are merged by position first.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        Components, open and non-manifold edges, volume and more.
    """
    unique, inverse = np.unique(np.asarray(vertices, np.float32), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[np.asarray(faces)]
    vertices = unique.astype(np.float64)
    _, counts = _edge_counts(faces)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    winding = len(np.unique(directed, axis=0)) == len(directed)
    double_area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    n_components = len(np.unique(_component_labels(len(vertices), faces)[1][faces[:, 0]])) if len(faces) else 0
    used = len(np.unique(faces))
    return MeshHealth(
        vertices=used,
        faces=len(faces),
        components=n_components,
        watertight=len(faces) > 0 and bool((counts == 2).all()),
        manifold=bool((counts <= 2).all()),
        winding_consistent=bool(winding),
        open_edges=int((counts == 1).sum()),
        non_manifold_edges=int((counts > 2).sum()),
        degenerate_faces=int((double_area < 1e-14).sum()),
        volume=signed_volume(vertices, faces),
        area=float(double_area.sum() / 2),
        euler_number=used - len(counts) + len(faces),
    )
