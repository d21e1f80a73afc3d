"""Networks: published sizes, identity at the start, modulation, conditions."""

import pytest
import torch

from synth_pipeline.diffusion.networks.mlp import ModulatedMLP, RandomFourier, ResidualMLP


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("channels", "expected"), [(42, 25_552_682), (27, 25_520_027)])
def test_the_published_denoiser_has_its_published_size(channels, expected):
    assert count_parameters(ResidualMLP(channels)) == expected


def test_half_the_published_width_has_six_and_a_half_million():
    assert count_parameters(ResidualMLP(42, width=1024)) == pytest.approx(6.5e6, rel=0.02)


def test_a_modulated_network_starts_at_zero_and_every_block_as_identity():
    network = ModulatedMLP(5, width=16, depth=3)
    x, level = torch.randn(7, 5), torch.randn(7)
    assert torch.equal(network(x, level), torch.zeros(7, 5))
    hidden = torch.randn(7, 16)
    modulation = network.modulation(torch.randn(7, 16)) + network.offsets[0]
    assert torch.equal(network.blocks[0](hidden, modulation), hidden)


def test_each_row_sees_its_own_noise_level():
    torch.manual_seed(0)
    for network in (ModulatedMLP(3, width=16), ResidualMLP(3, width=16)):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        x, level = torch.randn(4, 3), torch.tensor([-2.0, -1.0, 0.0, 1.0])
        together = network(x, level)
        alone = torch.cat([network(x[i : i + 1], level[i : i + 1]) for i in range(4)])
        assert torch.allclose(together, alone, atol=1e-5)
        assert not torch.allclose(network(x, level.flip(0)), together, atol=1e-3)


def test_one_level_for_all_rows_is_the_same_level_for_each():
    torch.manual_seed(0)
    network = ModulatedMLP(3, width=16, condition=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, level, told = torch.randn(4, 3), torch.tensor(0.7), torch.randn(4, 2)
    for rest in ((), (told,), (told, torch.tensor([True, False, True, True]))):
        together = network(x, level.expand(4), *rest)
        assert torch.allclose(together, network(x, level.repeat(4), *rest), atol=1e-6)
    assert network(x[:0], level.expand(0)).shape == (0, 3)


def test_random_frequencies_come_from_the_given_generator_and_are_saved():
    a, b = (RandomFourier(8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a.frequencies, b.frequencies)
    assert "frequencies" in a.state_dict()
    assert a(torch.zeros(2)).shape == (2, 17)


def test_a_condition_changes_the_output_and_its_null_does_not_depend_on_it():
    torch.manual_seed(0)
    network = ModulatedMLP(3, width=16, condition=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, level = torch.randn(4, 3), torch.randn(4)
    one, two = torch.randn(4, 2), torch.randn(4, 2)
    assert not torch.allclose(network(x, level, one), network(x, level, two), atol=1e-3)
    nothing = torch.zeros(4, dtype=torch.bool)
    assert torch.equal(network(x, level, one, nothing), network(x, level, two, nothing))
    assert torch.equal(network(x, level, one, nothing), network(x, level))
    some = torch.tensor([True, False, True, False])
    mixed = network(x, level, one, some)
    assert torch.equal(mixed[some], network(x, level, one)[some])
    assert torch.equal(mixed[~some], network(x, level)[~some])
