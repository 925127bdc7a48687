import torch

from bat_fast.train.rng import restore_rng_state, rng_state, seed_epoch


def test_state_round_trip():
    before = rng_state()
    first = torch.rand(3)
    restore_rng_state(before)
    assert torch.equal(torch.rand(3), first)


def test_every_seed_and_epoch_has_its_own_stream():
    drawn = []
    for seed in (0, 1, 2**31):
        for epoch in (0, 1):
            seed_epoch(seed, epoch)
            drawn.append(tuple(torch.rand(4).tolist()))
    assert len(set(drawn)) == len(drawn)
    seed_epoch(0, 0)
    assert tuple(torch.rand(4).tolist()) == drawn[0]
