"""Overrides that name nothing are refused with the name that was probably meant."""

import pytest

from dqn_exp.config.compose import compose
from dqn_exp.config.problems import ConfigError

KEYS = [
    ("agent.gama=1", "agent.gamma"),
    ("agent.target.tua=1", "agent.target.tau"),
    ("optim.clip.knd=norm", "optim.clip.kind"),
    ("checkpoint.evry=9", "checkpoint.every"),
    ("sedes=1", "seeds"),
    ("agnt=dqn", "agent"),
    ("gamma=0.9", "agent.gamma"),
    ("lr=1", "optim.lr"),
    ("batch_size=32", "train.batch_size"),
    ("epsilon=0.1", "exploration.start or exploration.end"),
    ("exploration.epsilon=0.1", "exploration.start or exploration.end"),
]
OPTIONS = [
    ("optim=adm", "adam"),
    ("net=mpl", "mlp"),
    ("buffer=prr", "per"),
    ("experiment=rainbo", "rainbow"),
    ("env=cartpol", "cartpole"),
]
ADDED = [("+agent.gama=1", "gamma"), ("+sedes=1", "seeds"), ("+optim.clip.knd=norm", "kind")]
PARTS = [
    ("agent.name=ddqnn", "agent", "ddqn"),
    ("buffer.name=perr", "buffer", "per"),
    ("net.name=mpl", "net", "mlp"),
    ("optim.name=adamm", "optim", "adam"),
    ("exploration.name=linaer", "exploration", "linear"),
    ("env.backend=gym", "env", "gymnasium"),
]


def refused(*overrides: str) -> list[str]:
    """The lines that are said of overrides."""
    with pytest.raises(ConfigError) as caught:
        compose("net=mlp", "exploration=linear", "buffer=uniform", *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_unknown_keys_are_refused_with_the_keys_that_were_probably_meant() -> None:
    keys = [(override.partition("=")[0], meant) for override, meant in KEYS]
    lines = [f"{key}: unknown key - did you mean {meant}?" for key, meant in keys]
    assert refused(*(override for override, _ in KEYS)) == lines


def test_an_unknown_key_is_not_deleted() -> None:
    assert refused("~agent.gama") == ["agent.gama: unknown key - did you mean agent.gamma?"]


@pytest.mark.parametrize("override", ["zzz=1", "agent.zzz=1"])
def test_a_key_like_no_other_is_refused_with_where_to_look(override: str) -> None:
    key = override.partition("=")[0]
    assert refused(override) == [f"{key}: unknown key; --help lists all keys"]


def test_a_key_that_is_added_must_be_one_of_its_group() -> None:
    lines = refused(*(override for override, _ in ADDED))
    assert len(lines) == len(ADDED)
    for override, meant in ADDED:
        key = override.strip("+").partition("=")[0]
        start = f"{key}: unknown key - did you mean {meant!r}? (one of: "
        assert sum(line.startswith(start) for line in lines) == 1


def test_an_unknown_option_is_refused_with_the_nearest_and_all_others() -> None:
    expected = "(one of: adam, adamw, rmsprop, sgd)"
    with pytest.raises(ConfigError) as caught:
        compose("optim=adm")
    assert str(caught.value) == f"optim=adm: unknown option - did you mean 'adam'? {expected}"
    with pytest.raises(ConfigError) as caught:
        compose("optim=zzz")
    assert str(caught.value) == f"optim=zzz: unknown option {expected}"


def test_the_nearest_option_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*(override for override, _ in OPTIONS))
    for line, (override, meant) in zip(map(str, caught.value.problems), OPTIONS, strict=True):
        assert line.startswith(f"{override}: unknown option - did you mean {meant!r}? (one of")


def test_an_unknown_part_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*(override for override, *_ in PARTS))
    lines = [str(problem) for problem in caught.value.problems]
    assert len(lines) == len(PARTS)
    for override, kind, meant in PARTS:
        start = f"{override}: unknown {kind} - did you mean {meant!r}? (one of"
        assert sum(line.startswith(start) for line in lines) == 1


def test_deleting_a_group_does_not_hide_other_problems() -> None:
    assert refused("~optim", "sede=1") == [
        "sede: unknown key - did you mean seed?",
        "optim: must be set (optimizer)",
    ]


def test_a_value_of_a_mistyped_key_is_not_also_refused() -> None:
    assert refused("agent.gama=7") == ["agent.gama: unknown key - did you mean agent.gamma?"]
