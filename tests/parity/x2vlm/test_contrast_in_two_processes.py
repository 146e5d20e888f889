"""The contrastive loss over two processes, with the exact gradient and with the local one."""

import pytest
import torch
import torch.multiprocessing as mp

from xmodaler.config import kfg
from xmodaler.losses import ImageTextContrastive

FAMILY = "itc-2rank"


def contrast(images, texts, temperature, ids, gradient):
    """Loss and gradients."""
    leaves = [x.clone().requires_grad_() for x in (images, texts, torch.tensor(temperature))]
    outputs = dict(zip((kfg.IMAGE_VECTORS, kfg.TEXT_VECTORS, kfg.TEMPERATURE), leaves, strict=True))
    if ids is not None:
        outputs[kfg.PAIR_IDS] = ids
    loss = ImageTextContrastive(gradient=gradient)(outputs)["ITC"]
    loss.backward()
    return loss.detach(), *(leaf.grad for leaf in leaves)


def in_process(rank, store, inputs, temperature, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    for case in ("idx", "noidx"):
        ids = inputs["idx"][rank] if case == "idx" else None
        for gradient in ("exact", "local"):
            images, texts = inputs["image_feat"][rank], inputs["text_feat"][rank]
            found = contrast(images, texts, temperature, ids, gradient)
            torch.save(found, f"{results}/{case}_{gradient}_{rank}.pth")
    # None leaves while the other still talks to it.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(fixture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    arguments = (str(folder / "store"), fixture.inputs, fixture.config["temp"], str(folder))
    mp.spawn(in_process, arguments, nprocs=2)
    return folder


@pytest.mark.parametrize("case", ["idx", "noidx"])
def test_one_process_with_the_joint_batch(fixture, close, case):
    expected = fixture.below(f"{case}/concatenated/", fixture.expected)
    ids = fixture.inputs["idx"].flatten() if case == "idx" else None
    images, texts = (fixture.inputs[f"{kind}_feat"].flatten(0, 1) for kind in ("image", "text"))
    found = contrast(images, texts, fixture.config["temp"], ids, "exact")
    names = ("loss", "grad_image_feat", "grad_text_feat", "grad_temp")
    for value, name in zip(found, names, strict=True):
        close(value, expected[name], name)


@pytest.mark.parametrize("case", ["idx", "noidx"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_local_gradient_is_the_released_one(fixture, results, close, case, rank):
    expected = fixture.below(f"{case}/rank{rank}/", fixture.expected)
    found = torch.load(results / f"{case}_local_{rank}.pth")
    names = ("loss", "grad_image_feat", "grad_text_feat", "grad_temp")
    for value, name in zip(found, names, strict=True):
        close(value, expected[name], name)


@pytest.mark.parametrize("case", ["idx", "noidx"])
def test_the_exact_gradient_is_that_of_one_process(fixture, results, close, case):
    expected = fixture.below(f"{case}/concatenated/", fixture.expected)
    ranks = [torch.load(results / f"{case}_exact_{rank}.pth") for rank in range(2)]
    for place, name in ((1, "grad_image_feat"), (2, "grad_text_feat")):
        # Averaged over processes, as gradients of parameters are.
        gradient = torch.cat([rank[place] for rank in ranks]) / 2
        close(gradient, expected[name], name)
    close((ranks[0][3] + ranks[1][3]) / 2, expected["grad_temp"], "grad_temp")
