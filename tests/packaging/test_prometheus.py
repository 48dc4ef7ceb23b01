"""
What is in ``deploy/prometheus``: every query is about metrics and labels that there are.

Prometheus takes a query for a metric that nobody has, and shows nothing; an alert of such a query
never comes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from echod.admin.metric_families import METRICS, Metric
from echod.connection.states import ENDS, State
from echod.server.counters import DATAGRAMS_REFUSED, STREAMS_REFUSED
from tests.packaging.test_deploy import DEPLOY, check, tool

FOLDER = DEPLOY / "prometheus"
RULES = FOLDER / "alerts.yml"
DASHBOARD = FOLDER / "dashboard.json"
ROWS = [
    *("Connections", "Ends", "Bytes", "Memory", "Latency and lag", "Datagrams"),
    "Certificates and configuration",
]

# -- What is queried -------------------------------------------------------------------------

#: What PromQL is made of, as far as it is needed here.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]*\])
    | (?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)
    | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^=<>(){},])""",
    re.VERBOSE,
)
#: What has labels in parentheses behind it.
_CLAUSES = ("by", "without", "on", "ignoring", "group_left", "group_right")
_OPERATORS = ("and", "or", "unless", "bool")
_OF_COUNTERS = ("rate", "increase")
_FUNCTIONS = (*_OF_COUNTERS, "histogram_quantile", "max_over_time", "time")
_AGGREGATIONS = ("sum", "max", "min")
#: Labels that Prometheus gives to whatever it scrapes; and the metric that it makes itself.
_SCRAPED = {"instance", "job"}
UP = Metric("up", "gauge", (), "Whether the last scrape succeeded.")

VALUES = {
    "state": {state.value for state in State},
    "reason": {reason.value for reason in ENDS} | {*STREAMS_REFUSED} | {*DATAGRAMS_REFUSED},
    "end": {end for ends in ENDS.values() for end in ends},
}


class Selector(NamedTuple):
    """One metric in a query: what is asked of its labels, and the function that it is in."""

    name: str
    matchers: list[tuple[str, str, str]]
    function: str


class Query(NamedTuple):
    """What a query is about."""

    selectors: list[Selector]
    labels: set[str]
    functions: set[str]


def tokens(query: str) -> list[tuple[str, str]]:
    """Kinds and texts; all of the query."""
    found, at = [], 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        assert match is not None, f"what is {query[at:]!r}?"
        assert match.lastgroup is not None
        if match.lastgroup != "space":
            found.append((match.lastgroup, match[0]))
        at = match.end()
    return [*found, ("end", "")]


def parsed(query: str) -> Query:
    """What a query is about."""
    rest = iter(tokens(query))
    seen = Query([], set(), set())
    function = ""
    kind, text = next(rest)
    while kind != "end":
        after = next(rest)
        if kind != "word" or text in _OPERATORS:
            pass
        elif text in _CLAUSES:
            assert after == ("sign", "(")
            seen.labels.update(word for kind, word in _until(rest, ")") if kind == "word")
            after = next(rest)
        elif after == ("sign", "(") or after[1] in _CLAUSES:
            seen.functions.add(text)
            function = text
        else:
            inside = list(_until(rest, "}")) if after == ("sign", "{") else []
            seen.selectors.append(Selector(text, list(_matchers(inside)), function))
            function = ""
            after = next(rest) if inside or after == ("sign", "{") else after
        kind, text = after
    return seen


def _until(rest: Iterator[tuple[str, str]], end: str) -> Iterator[tuple[str, str]]:
    for kind, text in rest:
        if (kind, text) == ("sign", end):
            return
        yield kind, text


def _matchers(inside: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    parts = [part for part in inside if part != ("sign", ",")]
    assert len(parts) % 3 == 0, parts
    for (_, label), (_, sign), (_, text) in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield label, sign, text[1:-1]


def test_parsed() -> None:
    """The parser of queries, by an example of each thing."""
    query = parsed(
        'sum by (instance, le) (rate(one_total{a="b,}",c=~"d|e"}[5m])) > 0.5 * two and'
        " max(three) - time() unless four{}"
    )
    assert query == Query(
        [
            Selector("one_total", [("a", "=", "b,}"), ("c", "=~", "d|e")], "rate"),
            Selector("two", [], ""),
            Selector("three", [], "max"),
            Selector("four", [], "time"),
        ],
        {"instance", "le"},
        {"sum", "rate", "max", "time"},
    )
    with pytest.raises(AssertionError, match="what is"):
        parsed("a ? b")


def series() -> dict[str, tuple[Metric, set[str]]]:
    """All series that can be queried, by name, with their labels."""
    found = {UP.name: (UP, {*_SCRAPED})}
    for metric in METRICS:
        labels = {*metric.labels, *_SCRAPED}
        if metric.kind == "histogram":
            found[f"{metric.name}_bucket"] = metric, {*labels, "le"}
            found |= {f"{metric.name}_{part}": (metric, labels) for part in ("sum", "count")}
        else:
            found[metric.name] = metric, labels
    return found


SERIES = series()


def examine(expression: str) -> Query:
    """See that there is all that a query asks for; returns what it is about."""
    query = parsed(expression)
    assert query.functions <= {*_FUNCTIONS, *_AGGREGATIONS}, query.functions
    assert query.selectors
    having: set[str] = set()
    for name, matchers, function in query.selectors:
        assert name in SERIES, f"there is no {name}"
        _, labels = SERIES[name]
        having |= labels
        counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert counts == (function in _OF_COUNTERS), f"{name} in {function or 'no function'}"
        for label, sign, value in matchers:
            assert label in labels, f"{name} has no {label}"
            assert sign in ("=", "=~")
            if label in VALUES:
                assert {*value.split("|")} <= VALUES[label], f"{label} is never {value}"
    assert query.labels <= having, query.labels - having
    return query


@pytest.mark.parametrize(
    "wrong",
    [
        "echod_conections_open",
        'echod_connections_open{end="fin"}',
        'echod_connections_open{state="opne"}',
        'rate(echod_connections_closed_total{reason=~"eof|oef"}[5m])',
        "sum by (listner) (echod_held_bytes)",
        "echod_pauses_total",
        "rate(echod_held_bytes[5m])",
        "rate(echod_first_byte_seconds[5m])",
        "delta(echod_held_bytes[5m])",
        "1 + 1",
    ],
)
def test_whatIsWrongIsFound(wrong: str) -> None:
    """A misspelt metric, label or value; a counter without a rate, a rate of what is none."""
    with pytest.raises(AssertionError):
        examine(wrong)


# -- Alerts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="there is no PyYAML (pip install -e '.[deploy]')")
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_alerts(rules: list[dict[str, Any]]) -> None:
    """Eight, each of which can come, and says what it means, why it matters, and what to do."""
    assert len({rule["alert"] for rule in rules}) == len(rules) == 8
    for rule in rules:
        query = examine(rule["expr"])
        assert {*rule["annotations"]} == {"summary", "reason", "action"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        for text in rule["annotations"].values():
            named = {*re.findall(r"\$labels\.(\w+)", text)}
            kept = query.labels or SERIES[query.selectors[0].name][1]
            assert named <= kept, f"{rule['alert']} has no {named - kept}"


def test_pathsOfAlerts(rules: list[dict[str, Any]]) -> None:
    """The paths that an alert sends somebody to are asked for reasons that there are."""
    texts = " ".join(rule["annotations"]["action"] for rule in rules)
    for path, reason in re.findall(r"/(closed|refused)\?reason=(\w+)", texts):
        words = {one.value for one in ENDS} if path == "closed" else {*STREAMS_REFUSED}
        assert reason in words
    assert {*re.findall(r"\?sort=(\w+)", texts)} <= {"age", "idle", "bytes", "pending"}


# -- The dashboard ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def asked(dashboard: dict[str, Any]) -> list[str]:
    """All queries of its panels, with values in place of the dashboard's variables."""
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name in ("__rate_interval", "__interval"):
                text = text.replace(f"[${name}]", "[5m]")
            for variable in ("instance", "listener"):
                text = text.replace(f'{variable}=~"${variable}"', f'{variable}=~".*"')
            assert "$" not in text
            found.append(text)
    return found


def test_queriesOfTheDashboard(dashboard: dict[str, Any]) -> None:
    """Each query is about what there is; and each metric is shown somewhere."""
    shown = set()
    for expression in asked(dashboard):
        for name, matchers, _ in examine(expression).selectors:
            shown.add(SERIES[name][0].name)
            # It shows what was chosen.
            labels = {label for label, _, _ in matchers}
            assert {"instance", "listener"} & SERIES[name][1] <= labels
    assert shown == {metric.name for metric in METRICS}


def test_legendsOfTheDashboard(dashboard: dict[str, Any]) -> None:
    """A legend names labels that are left."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = parsed(target["expr"].replace("[$", "["))
            named = {*re.findall(r"{{(\w+)}}", target["legendFormat"])}
            kept = query.labels if query.functions - {"time"} else None
            labels = SERIES[query.selectors[0].name][1] if kept is None else kept
            assert named <= labels, panel["title"]


def test_variablesOfTheDashboard(dashboard: dict[str, Any]) -> None:
    """The data source, the instance and the listener can be chosen; all listeners are offered."""
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert [*variables] == ["datasource", "instance", "listener"]
    for name in ("instance", "listener"):
        query = variables[name]["query"]["query"]
        assert variables[name]["definition"] == query
        offered = [each for each in SERIES if re.search(rf"\b{each}\b", query)]
        pattern = re.search(r'__name__=~"([^"]+)"', query)
        if pattern is not None:
            offered += [each for each in SERIES if re.fullmatch(pattern[1], each)]
        assert offered
        assert query.endswith(f", {name})")
    kinds = {SERIES[each][0].name.split("_")[1] for each in offered}
    assert kinds == {"connections", "datagrams"}


def test_layoutOfTheDashboard(dashboard: dict[str, Any]) -> None:
    """Its rows, in order; no two panels at one place, and no number twice."""
    panels = dashboard["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


# -- Prometheus itself -----------------------------------------------------------------------


def test_scrapes() -> None:
    """Over TCP, where ``--admin`` listens, and over a UNIX socket; the rules are beside it."""
    yaml = pytest.importorskip("yaml", reason="there is no PyYAML (pip install -e '.[deploy]')")
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert configuration["rule_files"] == [RULES.name]
    tcp, unix = configuration["scrape_configs"]
    readme = (FOLDER / "README.md").read_text()
    (target,) = tcp["static_configs"][0]["targets"]
    assert f"--admin {target.removeprefix('127.0.0.1:')}\n" in readme
    labels = unix["static_configs"][0]["labels"]
    assert f"unix:{labels['__unix_socket__']}:mode=660" in readme
    assert all(each["job_name"].startswith("echod") for each in (tcp, unix))


def test_promtool(dashboard: dict[str, Any], tmp_path: Path) -> None:
    """Prometheus' own checker takes the configuration, the rules, and each query as one."""
    promtool = tool("promtool", "Debian: prometheus")
    assert "8 rules found" in check(promtool, "check", "rules", RULES)
    check(promtool, "check", "config", FOLDER / "prometheus.yml")
    queries = tmp_path / "queries.yml"
    recorded = [
        {"record": f"query:{number}", "expr": expression}
        for number, expression in enumerate(asked(dashboard))
    ]
    queries.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in check(promtool, "check", "rules", queries)


#: For each alert a series that brings it, minute by minute for half an hour.
_HERE = 'instance="here",listener="raw tcp 127.0.0.1:1234"'
BRINGS = {
    "EchodDown": {'up{job="echod",instance="here"}': "0x30"},
    "EchodFull": {f'echod_connections_refused_total{{{_HERE},reason="full"}}': "0+60x30"},
    "EchodProtocolRaises": {
        f'echod_connections_closed_total{{{_HERE},reason="error",end="abort"}}': "0x20 1x10"
    },
    "EchodCutsBytes": {f"echod_cut_bytes_total{{{_HERE}}}": "0+10x30"},
    "EchodHoldsMuch": {
        f"echod_held_bytes{{{_HERE}}}": f"{1000 * 300_000}x30",
        f'echod_connections_open{{{_HERE},state="open"}}': "1000x30",
    },
    "EchodLoopLags": {'echod_loop_lag_seconds{instance="here"}': "0.3x30"},
    "EchodCertificateExpires": {
        f'echod_certificate_not_after_timestamp_seconds{{{_HERE},name=""}}': f"{86400 * 13}x90"
    },
    "EchodReloadRefused": {'echod_config_last_reload_successful{instance="here"}': "0x30"},
}
#: The same where all is well: nobody is woken.
WELL = {
    'up{job="echod",instance="here"}': "1x90",
    'up{job="another",instance="there"}': "0x90",
    f'echod_connections_refused_total{{{_HERE},reason="full"}}': "5+1x90",
    f'echod_connections_refused_total{{{_HERE},reason="denied"}}': "0+600x90",
    f'echod_connections_closed_total{{{_HERE},reason="error",end="abort"}}': "3x90",
    f'echod_connections_closed_total{{{_HERE},reason="eof",end="fin"}}': "0+600x90",
    f"echod_cut_bytes_total{{{_HERE}}}": "100x90",
    f"echod_held_bytes{{{_HERE}}}": f"{1000 * 100_000}x90",
    f'echod_connections_open{{{_HERE},state="open"}}': "1000x90",
    'echod_loop_lag_seconds{instance="here"}': "0.01x90",
    'echod_slow_turns_total{instance="here"}': "7x90",
    f'echod_certificate_not_after_timestamp_seconds{{{_HERE},name=""}}': f"{86400 * 30}x90",
    'echod_config_last_reload_successful{instance="here"}': "1x90",
}


def test_eachAlertComes(rules: list[dict[str, Any]], tmp_path: Path) -> None:
    """Where something is wrong just its alert comes; where nothing is, none."""
    promtool = tool("promtool", "Debian: prometheus")
    assert [*BRINGS] == [rule["alert"] for rule in rules]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": each} for name, each in series.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "80m" if "certificate" in " ".join(series) else "29m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
                    if alert
                    else [],
                }
            ],
        }
        for alert, series in [*BRINGS.items(), ("", WELL)]
    ]
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    assert "SUCCESS" in check(promtool, "test", "rules", file)


def test_promtoolOnMetrics() -> None:
    """It finds no fault in names, types and helps."""
    pytest.importorskip("prometheus_client", reason="needs prometheus-client")
    from echod.admin.metrics import exposition
    from echod.testing import PlainContext

    command = [tool("promtool", "Debian: prometheus"), "check", "metrics"]
    text = exposition(PlainContext())[1]
    done = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
