from configs.seeds import rng_for, seed_for


def test_seed_is_a_fixed_function_of_what_it_is_for() -> None:
    """A changed number would change every run that is resumed: sha256('0/sample/1/2/3'), first 8 bytes, halved."""
    assert seed_for(0, "sample", round_index=1, step=2, index=3) == 2736319902150892068


def test_each_place_of_a_run_has_a_seed_of_its_own() -> None:
    places = [
        seed_for(0, "sample"),
        seed_for(1, "sample"),
        seed_for(0, "order"),
        seed_for(0, "sample", round_index=1),
        seed_for(0, "sample", step=1),
        seed_for(0, "sample", index=1),
    ]
    assert len(set(places)) == 6
    assert all(0 <= seed < 2**63 for seed in places)


def test_generators_of_one_place_draw_the_same() -> None:
    assert rng_for(0, "sample", step=1).random() == rng_for(0, "sample", step=1).random()
    assert rng_for(0, "sample", step=1).random() != rng_for(0, "sample", step=2).random()
