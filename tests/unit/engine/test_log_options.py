"""Log options: what is refused, and what the monitor is told."""

from __future__ import annotations

import re

import pytest
from records import container

from proa.engine.log_options import check_log_config, fill_in_log, log_options
from proa.engine.types import LogConfig
from proa.errors import Invalid, Unsupported


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("nope", {}, "logger: no log driver named 'nope' is registered"),
        ("json-file", {"nope": "1"}, "unknown log opt 'nope' for json-file log driver"),
        ("none", {"max-size": "1m"}, "unknown log opt 'max-size' for none log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for local log driver"),
        ("json-file", {"max-size": "ten"}, "invalid size: 'ten'"),
        ("json-file", {"max-size": "1_0m"}, "invalid size"),
        ("json-file", {"max-file": "0"}, "max-file"),
        ("json-file", {"max-size": "-1", "max-file": "4"}, "max-size must be set"),
        ("json-file", {"compress": "maybe"}, "neither true nor false"),
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when max-file is less than 2"),
        ("json-file", {"mode": "fast"}, "logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"env-regex": "("}, "env-regex"),
        ("json-file", {"tag": "{{.Nope}}"}, "no field .Nope"),
        ("json-file", {"tag": "{{if .ID}}x{{end}}"}, "cannot read the log tag"),
        ("syslog", {"syslog-address": "somewhere"}, "should be in form proto://address"),
        ("syslog", {"syslog-address": "unix://relative"}, "absolute path"),
        ("syslog", {"syslog-address": "udp://host:99999"}, "should be in form"),
        ("syslog", {"syslog-facility": "kitchen"}, "invalid syslog facility: kitchen"),
        ("syslog", {"syslog-format": "rfc1"}, "Invalid syslog format: rfc1"),
    ],
)
def test_what_is_refused(driver: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(Invalid, match=re.escape(text)):
        check_log_config(LogConfig(type=driver, config=options))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (LogConfig(), LogConfig(type="cri", config={"max-size": "1m", "max-file": "7"})),
        (LogConfig(config={"max-size": "2m"}), LogConfig(type="cri", config={"max-size": "2m", "max-file": "7"})),
        (LogConfig(type="cri"), LogConfig(type="cri", config={"max-size": "1m", "max-file": "7"})),
        (LogConfig(type="json-file"), LogConfig(type="json-file")),
    ],
)
def test_what_is_left_open_is_the_engines_default(given: LogConfig, expected: LogConfig) -> None:
    default = LogConfig(type="cri", config={"max-size": "1m", "max-file": "7"})
    fill_in_log(given, default)
    assert given == expected
    given.config["max-size"] = "3m"
    assert default.config["max-size"] == "1m"


def test_tls_is_not_there() -> None:
    with pytest.raises(Unsupported):
        check_log_config(LogConfig(type="syslog", config={"syslog-address": "tcp+tls://h:1"}))


def resolved(driver: str, **options: str) -> dict[str, object]:
    record = container(
        host={"log_config": LogConfig(type=driver, config={k.replace("_", "-"): v for k, v in options.items()})},
        config={"labels": {"app": "web", "tier": "front"}, "env": ["MODE=on", "SECRET=x"]},
    )
    return log_options(record)


def test_defaults() -> None:
    json_file = {"driver": "json-file", "max_size": 10 << 20, "max_file": 3, "compress": True, "attributes": {}}
    assert resolved("") == resolved("json-file") == json_file
    assert resolved("local") == {"driver": "local", "max_size": 20 << 20, "max_file": 5, "compress": True}
    assert resolved("none")["driver"] == "none"


@pytest.mark.parametrize(
    ("text", "size"), [("1k", 1024), ("1.5m", 3 << 19), ("2G", 2 << 30), ("7", 7), ("10mb", 10 << 20), ("-1", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert resolved("json-file", max_size=text)["max_size"] == size


def test_labels_variables_and_tag() -> None:
    found = resolved("json-file", labels="app,nope", env_regex="^MO", tag="{{.Name}}/{{.ImageName}}")
    assert found["attributes"] == {"app": "web", "MODE": "on", "tag": "box/busybox"}
    journal = resolved("journald", labels="app")
    assert isinstance(journal["attributes"], dict)
    assert journal["attributes"]["APP"] == "web"
    assert journal["attributes"]["CONTAINER_NAME"] == "box"
    assert journal["max_file"] == 5
    assert resolved("journald", cache_disabled="true")["max_file"] == 0


def test_syslog() -> None:
    found = resolved("syslog", syslog_address="udp://localhost", syslog_facility="local3", tag="t")
    assert (found["address"], found["facility"], found["format"], found["tag"]) in [
        ("udp://127.0.0.1:514", 19, "rfc3164", "t"),
        ("udp://[::1]:514", 19, "rfc3164", "t"),
    ]
    assert resolved("syslog")["address"] == ""
    assert resolved("syslog")["format"] == "unix"
