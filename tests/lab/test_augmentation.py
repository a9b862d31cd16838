"""Shifted and mirrored train images: what may become of one, and that only seed, example and epoch matter."""

import pytest
import torch

from laconic.lab.datasets.augmentation import MARGIN, Augmentation

BACKGROUND = (-1.0, -2.0)


def augmentation(seed: int = 3) -> Augmentation:
    return Augmentation(n_examples=500, seed=seed, background=BACKGROUND)


def images(n: int = 500) -> torch.Tensor:
    """Images of 5x6 pixels without two equal pixels."""
    return torch.arange(n * 2 * 5 * 6, dtype=torch.float32).reshape(n, 2, 5, 6)


def every_outcome(image: torch.Tensor) -> list[torch.Tensor]:
    """All 162 crops of one image, by loops."""
    channels, height, width = image.shape
    outcomes = []
    for down in range(2 * MARGIN + 1):
        for right in range(2 * MARGIN + 1):
            crop = torch.empty_like(image)
            for c in range(channels):
                for y in range(height):
                    for x in range(width):
                        row, column = y + down - MARGIN, x + right - MARGIN
                        inside = 0 <= row < height and 0 <= column < width
                        crop[c, y, x] = image[c, row, column] if inside else BACKGROUND[c]
            outcomes += [crop, crop.flip(2)]
    return outcomes


def test_an_image_becomes_one_of_its_crops_mirrored_or_not_and_each_is_as_likely():
    one = images(1)
    outcomes = every_outcome(one[0])
    many = augmentation()(one.expand(500, -1, -1, -1), torch.arange(500), 0)
    numbers = [next(k for k, outcome in enumerate(outcomes) if torch.equal(outcome, each)) for each in many]
    assert 200 < sum(number % 2 for number in numbers) < 300
    assert len({number // 2 for number in numbers}) > 70  # of 81


def test_what_becomes_of_an_example_depends_on_seed_example_and_epoch_alone():
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    together = augmentation()(images(), torch.arange(500), 2)
    other = augmentation()
    other(images(), torch.arange(500), 7)  # another epoch in between
    shuffled = other(images()[order], order, 2)
    assert torch.equal(shuffled, together[order])
    alone = augmentation()(images()[17:18], torch.tensor([17]), 2)
    assert torch.equal(alone[0], together[17])
    for changed in (augmentation()(images(), torch.arange(500), 3), augmentation(4)(images(), torch.arange(500), 2)):
        assert sum(not torch.equal(a, b) for a, b in zip(changed, together, strict=True)) > 400


def test_the_images_themselves_and_the_global_generator_stay_as_they_are():
    before, state = images(), torch.random.get_rng_state()
    given = images()
    augmentation()(given, torch.arange(500), 0)
    assert torch.equal(given, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dataset", ["digits"])
def test_pictures_that_may_not_be_mirrored_are_refused(dataset):
    from laconic.errors import OptionError
    from laconic.lab.runs.experiment import Experiment
    from laconic.lab.runs.settings import RunSettings

    with pytest.raises(OptionError, match="augment=True is for pictures such as those of cifar10; digits has none"):
        Experiment(RunSettings(algorithm="sgd", dataset=dataset, augment=True))
