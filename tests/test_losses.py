import math
from dataclasses import replace

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.losses import TERMS, LossWeights, View, loss_config
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import ReferenceView, RenderOutput


def value(name: str, view: View) -> float:
    return TERMS[name].fn(view).item()


@pytest.fixture
def out():
    ones = torch.ones(1, 2, 2, 1)
    return RenderOutput(comp_rgb=0.5 * ones.expand(1, 2, 2, 3), opacity=0.25 * ones, depth=ones)


@pytest.fixture
def reference():
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
    return ReferenceView(orbit_cameras(0.0, 0.0, height=2, width=2), torch.zeros(1, 2, 2, 3), mask)


def test_rgb_and_mask_against_hand_computed_means(out, reference):
    # target: black inside, white in the one background pixel; every pixel is 0.5 away
    assert value("rgb", View(out, reference)) == pytest.approx(0.25)
    assert value("mask", View(out, reference)) == pytest.approx((3 * 0.75**2 + 0.25**2) / 4)
    black = View(replace(out, comp_rgb=torch.zeros(1, 2, 2, 3), background=torch.zeros(1, 2, 2, 3)), reference)
    assert value("rgb", black) == 0


def test_views_count_by_their_weights(out, reference):
    two = RenderOutput(
        torch.cat([out.comp_rgb, out.comp_rgb]), torch.cat([out.opacity, 0 * out.opacity]), torch.cat([out.depth] * 2)
    )
    cameras = orbit_cameras(0.0, torch.tensor([0.0, 90.0]), height=2, width=2)
    views = ReferenceView(cameras, torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, 2, 1), weights=torch.tensor([0.5, 1.5]))
    assert value("mask", View(two, views)) == pytest.approx(0.25**2 / 4)


def test_near_is_the_mean_distance_inside_masks(out, reference):
    depth = torch.tensor([[0.5, 1.0], [1.5, 40.0]]).reshape(1, 2, 2, 1).requires_grad_()  # weights add up to 0.25
    loss = TERMS["near"].fn(View(replace(out, depth=depth), reference))
    assert loss.item() == pytest.approx((2.0 + 4.0 + 6.0) / 3)
    loss.backward()
    assert depth.grad.flatten().tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 0])
    empty = View(replace(out, depth=depth), replace(reference, mask=torch.zeros(1, 2, 2, 1)))
    assert value("near", empty) == 0


def test_depth_terms_do_not_see_scale_and_shift(out, reference):
    rendered = torch.tensor([[1.0, 2.0], [4.0, 9.0]]).reshape(1, 2, 2, 1)
    given = 3 * rendered + 5
    view = View(replace(out, depth=rendered), replace(reference, depth=given))
    assert value("depth", view) == pytest.approx(0, abs=1e-9)
    assert value("depth_rel", view) == pytest.approx(0, abs=1e-6)
    flipped = View(replace(out, depth=-rendered), replace(reference, depth=given))
    assert value("depth_rel", flipped) == pytest.approx(2, abs=1e-6)


def test_depth_is_what_no_scale_and_shift_explains(out, reference):
    rendered = torch.tensor([[1.0, 2.0], [6.0, 9.0]]).reshape(1, 2, 2, 1)
    given = torch.tensor([[0.0, 1.0], [2.0, 50.0]]).reshape(1, 2, 2, 1)  # the last pixel lies outside
    view = View(replace(out, depth=rendered), replace(reference, depth=given))
    # regression line through (0, 1), (1, 2), (2, 6): slope 2.5, mean 3, residuals 0.5, -1, 0.5
    assert value("depth", view) == pytest.approx(1.5 / 3)
    assert value("depth_rel", view) == pytest.approx(1 - 5 / math.sqrt(2 * 14))


def test_depth_loss_of_degenerate_images_is_finite(out, reference):
    rendered = torch.tensor([[1.0, 2.0], [6.0, 9.0]]).reshape(1, 2, 2, 1).requires_grad_()
    for given in (reference, replace(reference, mask=0 * reference.mask)):
        view = View(replace(out, depth=rendered), replace(given, depth=torch.ones(1, 2, 2, 1)))
        loss = TERMS["depth"].fn(view) + TERMS["depth_rel"].fn(view)
        (gradient,) = torch.autograd.grad(loss, rendered)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert value("depth", View(replace(out, depth=rendered), replace(reference, depth=torch.ones(1, 2, 2, 1)))) == (
        pytest.approx(14 / 3)  # the variance about the mean 3 of 1, 2, 6
    )


def test_normal_is_one_minus_cosine_inside_the_mask(out, reference):
    x = torch.tensor([1.0, 0.0, 0.0]).expand(1, 2, 2, 3)
    y = torch.tensor([0.0, 1.0, 0.0]).expand(1, 2, 2, 3)
    view = View(replace(out, comp_normal=(x + 1) / 2), replace(reference, normal=y))
    assert value("normal", view) == pytest.approx(1)
    assert value("normal", View(view.out, replace(reference, normal=x))) == pytest.approx(0, abs=1e-6)


def test_normal_smooth_is_down_plus_across(out):
    n = torch.zeros(1, 2, 2, 3)
    n[:, 1] = 1.0  # changes by 1 going down, by 0 going across
    assert value("normal_smooth", View(replace(out, comp_normal=n))) == pytest.approx(1)


def test_3d_normal_smooth_is_the_mean_absolute_difference(out):
    output = replace(out, normal=torch.tensor([[1.0, 0, 0]]), normal_perturbed=torch.tensor([[0.0, 1.0, 0.5]]))
    assert value("3d_normal_smooth", View(output)) == pytest.approx(2.5 / 3)


def test_3d_normal_smooth_of_some_samples_compares_these(out):
    normal = torch.tensor([[0, 0, 1.0], [1.0, 0, 0], [0, 0, 1.0]])
    near = torch.tensor([[0.0, 1.0, 0.5]])
    output = replace(out, normal=normal, normal_perturbed=near, perturbed_at=torch.tensor([1]))
    assert value("3d_normal_smooth", View(output)) == pytest.approx(2.5 / 3)


def test_orient_counts_only_normals_that_face_away(out):
    normal = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    dirs = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    output = replace(out, normal=normal, dirs=dirs, weights=torch.tensor([0.5, 0.5]))
    assert value("orient", View(output)) == pytest.approx(0.5 / 4)


def test_sparsity_opaque_and_eikonal(out):
    assert value("sparsity", View(out)) == pytest.approx(math.sqrt(0.25**2 + 0.01))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert value("opaque", View(out)) == pytest.approx(entropy)
    gradient = torch.tensor([[2.0, 0, 0], [0, 1.0, 0]])
    assert value("eikonal", View(replace(out, sdf_grad=gradient))) == pytest.approx(0.5)


def test_no_samples_is_no_loss_but_still_differentiable(out):
    empty = torch.zeros(0, 3, requires_grad=True)
    output = replace(out, normal=empty, normal_perturbed=empty, dirs=empty, weights=torch.zeros(0))
    loss = TERMS["3d_normal_smooth"].fn(View(output)) + TERMS["orient"].fn(View(output))
    loss.backward()
    assert float(loss) == 0


def test_a_disabled_term_is_not_computed(out):
    weights = LossWeights(loss_config()(lambda_opaque=2.0, lambda_orient=[0, 0.0, 1.0, 10]))
    assert weights.needs("novel", 0) == frozenset()
    assert weights.needs("novel", 5) == {"samples", "normal"}
    terms = weights.compute("novel", 0, View(out))
    assert list(terms) == ["opaque"]
    assert terms["opaque"].weight == 2
    assert not weights.is_ever_used("sds")


def test_terms_on_normals_pause_and_count_more(out):
    cfg = loss_config()(lambda_opaque=2.0, lambda_normal_smooth=0.5, lambda_orient=[0, 0.0, 1.0, 6])
    every, third = LossWeights(cfg), LossWeights(cfg, normals_every=3)
    for view, steps in (("reference", {0, 3, 6}), ("novel", {2, 5, 8})):
        assert {step for step in range(9) if "normal" in third.needs(view, step)} == steps
    for step in range(9):
        for view in ("reference", "novel"):
            expected = {n: (3 if n != "opaque" else 1) * every.weight(n, step) for n in third.active(view, step)}
            assert {n: third.weight_in(view, n, step) for n in expected} == expected
            assert "opaque" in expected


def test_pausing_every_second_step_keeps_the_mean_gradient(out):
    normals = torch.randn(1, 2, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradients = []
    for every in (1, 2):
        weights = LossWeights(loss_config()(lambda_opaque=2.0, lambda_normal_smooth=0.5), normals_every=every)
        steps = [weights.compute("novel", step, View(replace(out, comp_normal=normals))) for step in (0, 1)]
        total = sum(term.weight * term.value for terms in steps for term in terms.values())
        gradients.append(torch.autograd.grad(total, normals)[0] / len(steps))
        assert [len(terms) for terms in steps] == ([2, 2] if every == 1 else [1, 2])
    torch.testing.assert_close(*gradients)


def test_terms_say_what_they_want_of_the_data():
    weights = LossWeights(loss_config()(lambda_depth_rel=[0, 0.0, 1.0, 10], lambda_normal=0.1, lambda_rgb=1.0))
    assert weights.required_maps() == {"depth_rel": "depth", "normal": "normal"}


def test_a_bad_weight_names_its_key():
    with pytest.raises(ConfigError, match=r"system\.loss\.lambda_rgb"):
        LossWeights(loss_config()(lambda_rgb=[1, 2]))


def settings(**values):
    return loss_config()(**values)


def test_mask_bce_is_binary_cross_entropy(out, reference):
    expected = torch.nn.functional.binary_cross_entropy(out.opacity.clamp(1e-5, 1 - 1e-5), reference.mask)
    assert value("mask_bce", View(out, reference)) == pytest.approx(float(expected), rel=1e-5)


def test_z_variance_is_the_depth_variance(out):
    opacity = torch.tensor([1.0, 0.4, 0.0, 0.0]).reshape(1, 2, 2, 1)
    rays = torch.tensor([0, 0, 1, 1])
    output = replace(out, opacity=opacity, weights=torch.tensor([0.5, 0.5, 0.2, 0.2]), t=torch.tensor([1.0, 3, 0, 9]))
    assert value("z_variance", View(replace(output, ray_indices=rays))) == pytest.approx(1.0), "1 and 3 about 2"


def test_emptiness_is_the_mean_log_of_weights(out):
    output = View(replace(out, weights=torch.tensor([0.0, 0.1])), settings=settings(emptiness_scale=10.0))
    assert value("emptiness", output) == pytest.approx(math.log(2) / 2)


def test_convex_prefers_bulges_to_dents(out):
    bulge = torch.zeros(1, 2, 2, 3)
    bulge[:, :, 0], bulge[:, :, 1] = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    view = lambda n: View(replace(out, comp_normal=n), settings=settings(convexity_resolution=2))  # noqa: E731
    assert value("convex", view(bulge)) == pytest.approx(-1.0), "x cross y is z"
    assert value("convex", view(bulge.flip(2))) == pytest.approx(1.0)


def test_mesh_terms_of_a_tetrahedron(out):
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    view = View(replace(out, mesh_vertices=vertices, mesh_faces=faces))
    # Normals point along the vertices, whose cosines are -1/3; the sum of (v - neighbour) is 4 v.
    assert value("normal_consistency", view) == pytest.approx(4 / 3, rel=1e-5)
    assert value("laplacian_smoothness", view) == pytest.approx(4 * math.sqrt(3), rel=1e-5)


def test_shared_terms_may_look_at_random_views_alone():
    cfg = settings(lambda_opaque=1.0, lambda_rgb=1.0)
    assert set(LossWeights(cfg).active("reference", 0)) == {"opaque", "rgb"}
    assert set(LossWeights(cfg, regularized="novel").active("reference", 0)) == {"rgb"}
    assert set(LossWeights(cfg, regularized="novel").active("novel", 0)) == {"opaque"}
