"""Which driver and policy a runtime handler's pods get."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from phantom_cri.__main__ import make_drivers, make_handlers, make_profiles
from phantom_cri.config import Config, HandlerConfig
from phantom_cri.config.handlers import DRIVERS
from phantom_cri.errors import ConfigError
from phantom_cri.images import ImageService
from phantom_cri.lifecycle.runtime import Handler
from phantom_cri.policy import PolicyBook

POLICIES = Path(__file__).parents[3] / "policies"


def handlers(*wanted: HandlerConfig) -> dict[str, Handler]:
    settings = Config(handlers=wanted)
    return make_handlers(settings, PolicyBook.load(POLICIES), make_profiles(settings))


def test_a_policy_that_is_not_there_is_named_with_its_key_and_with_what_there_is() -> None:
    message = "handlers[1].policy: unknown policy 'stirct', known are default, strict"
    with pytest.raises(ConfigError, match=re.escape(message)):
        handlers(HandlerConfig("a", policy="strict"), HandlerConfig("b", policy="stirct"))


def test_a_handler_that_names_no_policy_has_the_default_one() -> None:
    found = handlers(HandlerConfig("hostile", policy="strict"), HandlerConfig(""))
    assert {name: handler.policy.name for name, handler in found.items()} == {
        "": "default",
        "phantom": "default",
        "hostile": "strict",
    }
    assert {handler.driver for handler in found.values()} == {"native"}


def test_every_driver_that_the_configuration_knows_is_there(tmp_path: Path) -> None:
    assert tuple(make_drivers(ImageService(tmp_path))) == DRIVERS
