"""Layouts → matrices, checked against what the layers compute."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ww_callbacks.spectral.layers import matrix_layouts as parts

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def arranged(part, array):
    return part.arrange(array[part.index] if part.index else array)


def same_on_torch(part, array, matrices):
    """A torch tensor gives the same matrices, bit for bit and in C order."""
    for matrix, tensor in zip(matrices, arranged(part, torch.from_numpy(array)), strict=True):
        np.testing.assert_array_equal(matrix, tensor.numpy())
        assert tensor.stride() == tuple(s // matrix.itemsize for s in matrix.strides)


@pytest.mark.parametrize(("kernel", "groups"), [((3,), 1), ((3, 2), 1), ((2, 3), 2), ((1, 2, 3), 1)])
def test_a_convolution_is_its_matrix_on_patches(kernel, groups):
    weight = draw(6, 4 // groups, *kernel)
    (part,) = parts.convolution(weight.shape, "matrix", groups=groups)
    blocks = arranged(part, weight)
    same_on_torch(part, weight, blocks)
    assert tuple(b.shape for b in blocks) == part.shapes
    patch = draw(4, *kernel)  # one output position: the input is as large as the kernel
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel)]
    expected = convolve(torch.from_numpy(patch)[None], torch.from_numpy(weight), groups=groups).flatten().numpy()
    inputs = patch.reshape(groups, -1)
    np.testing.assert_allclose(
        np.concatenate([b @ x for b, x in zip(blocks, inputs, strict=True)]), expected, rtol=1e-5
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_holds_what_each_output_gets_from_each_input_and_position(groups):
    weight = draw(4, 6 // groups, 2, 3)
    blocks = arranged(parts.convolution(weight.shape, "matrix", groups=groups, layout="torch transposed")[0], weight)
    x = draw(4)
    expected = F.conv_transpose2d(torch.from_numpy(x).reshape(1, 4, 1, 1), torch.from_numpy(weight), groups=groups)[0]
    taps = [b.reshape(b.shape[0], 4 // groups, 6) for b in blocks]
    got = np.concatenate([np.einsum("oit,i->ot", t, v) for t, v in zip(taps, x.reshape(groups, -1), strict=True)])
    np.testing.assert_allclose(got.reshape(expected.shape), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("layout", "axes", "groups"),
    [
        ("torch", (0, 1, 2, 3), 1),
        ("torch", (0, 1, 2, 3), 2),
        ("torch transposed", (1, 0, 2, 3), 1),
        ("keras", (2, 3, 1, 0), 1),
        ("keras", (2, 3, 1, 0), 2),
        ("keras transposed", (2, 3, 0, 1), 1),
    ],
)
@pytest.mark.parametrize("convolution", parts.CONVENTIONS)
def test_every_framework_s_layout_gives_the_same_bits(layout, axes, groups, convolution):
    canonical = draw(6, 4, 3, 2)  # out, in/groups, kernel
    stored = np.ascontiguousarray(canonical.transpose(axes))
    expected = [m for p in parts.convolution((6, 4, 3, 2), convolution, groups=groups) for m in arranged(p, canonical)]
    found = parts.convolution(stored.shape, convolution, groups=groups, layout=layout)
    matrices = [m for p in found for m in arranged(p, stored)]
    assert [s for p in found for s in p.shapes] == [m.shape for m in matrices]
    for got, wanted in zip(matrices, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.flags.c_contiguous


def test_slices_are_the_kernel_s_positions_and_weightwatcher_s_are_halved_in_lambda():
    weight = draw(5, 4, 2, 3)
    (pooled,) = parts.convolution(weight.shape, "slices")
    (halved,) = parts.convolution(weight.shape, "weightwatcher")
    separate = parts.convolution(weight.shape, "separate")
    assert [p.label for p in separate] == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    slices = arranged(pooled, weight)
    for part, matrix, half in zip(separate, slices, arranged(halved, weight), strict=True):
        i, j = map(int, part.label.split(","))
        np.testing.assert_array_equal(matrix, weight[:, :, i, j])
        np.testing.assert_array_equal(arranged(part, weight)[0], matrix)
        lam = np.linalg.svd(matrix.astype(float), compute_uv=False) ** 2
        np.testing.assert_allclose(np.linalg.svd(half, compute_uv=False) ** 2, lam / 2, rtol=1e-13)


def test_a_depthwise_kernel_is_filters_by_taps_and_equal_in_both_frameworks():
    keras_kernel = draw(3, 3, 4, 2)  # kernel, in, multiplier
    torch_kernel = np.ascontiguousarray(keras_kernel.transpose(2, 3, 0, 1)).reshape(8, 1, 3, 3)
    (there,) = parts.convolution(keras_kernel.shape, "matrix", layout="keras depthwise")
    for convolution in parts.CONVENTIONS:
        (here,) = parts.convolution(torch_kernel.shape, convolution, groups=4)
        np.testing.assert_array_equal(arranged(here, torch_kernel)[0], arranged(there, keras_kernel)[0])
    assert here.shapes == there.shapes == ((8, 9),)


@pytest.mark.parametrize(
    ("equation", "x", "kernel"),
    [
        ("abc,cde->abde", (2, 3, 4), (4, 5, 6)),
        ("abcd,cde->abe", (2, 3, 4, 5), (4, 5, 6)),
        ("bqm,muh->bquh", (2, 3, 4), (4, 5, 6)),
        ("ab,cb->ac", (2, 3), (5, 3)),
    ],
)
def test_an_einsum_is_its_matrix(equation, x, kernel):
    inputs, weight = draw(*x), draw(*kernel)
    (part,) = parts.einsum(equation, kernel)
    (matrix,) = arranged(part, weight)
    assert part.shapes == (matrix.shape,)
    expected = np.einsum(equation, inputs, weight)
    batch = len(np.einsum(equation, inputs, weight).shape) - len([a for a in equation.split("->")[1] if a in "deuhc"])
    flat = inputs.reshape(*inputs.shape[:batch], -1) if batch else inputs
    np.testing.assert_allclose(
        flat.reshape(-1, matrix.shape[1]) @ matrix.T, expected.reshape(-1, matrix.shape[0]), rtol=1e-4
    )


def test_an_einsum_over_blocks_pools_them():
    weight = draw(3, 4, 5)
    (part,) = parts.einsum("ghi,gio->gho", weight.shape)
    for block, matrix in zip(weight, arranged(part, weight), strict=True):
        np.testing.assert_array_equal(matrix, block.T)


@pytest.mark.parametrize("equation", ["ab->ba", "ab,bc,cd->ad", "ab,bb->a", "ab,bcd->ab"])
def test_an_einsum_of_another_form_is_refused(equation):
    with pytest.raises(ValueError, match="equation"):
        parts.einsum(equation, (3, 3))


def test_an_expert_s_gate_and_up_are_found_in_each_layout():
    gate, up = draw(2, 5, 3), draw(2, 5, 3)  # experts, out, in
    one_after_the_other = np.concatenate([gate, up], axis=1)
    alternating = np.stack([gate, up], axis=2).reshape(2, 10, 3)
    for array, options in (
        (one_after_the_other, {}),
        (np.ascontiguousarray(one_after_the_other.swapaxes(1, 2)), {"transposed": True}),
        (np.ascontiguousarray(alternating.swapaxes(1, 2)), {"transposed": True, "interleaved": True}),
    ):
        found = {
            p.label: arranged(p, array)[0] for p in parts.stack(array.shape, "expert", halves=("gate", "up"), **options)
        }
        for i in range(2):
            np.testing.assert_array_equal(found[f"{i},gate"], gate[i])
            np.testing.assert_array_equal(found[f"{i},up"], up[i])


def test_unequal_parts_are_refused():
    with pytest.raises(ValueError, match="7 outputs"):
        parts.packed((7, 3), parts.QKV, "packed")
    with pytest.raises(ValueError, match="7 outputs"):
        parts.stack((2, 7, 3), "expert", halves=("gate", "up"))


def test_an_unknown_convention_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'matrix', 'slices', 'separate', 'weightwatcher' but got 'pooled'"):
        parts.check_convention("pooled")
