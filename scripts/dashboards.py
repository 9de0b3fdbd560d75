#!/usr/bin/env python3
"""Writes the Grafana dashboards in dashboards/, so that every panel follows the same rules.

dashboards.py           writes them
dashboards.py --check   says whether they are as they would be written; exit 1 if not
"""

import json
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What every query is about. %s stands for these matchers in the queries below.
WORKERS = 'job=~"$job",instance=~"$instance"'
POOL = WORKERS + ',pool=~"$pool"'
COLUMNS = 24
HEIGHTS = {"stat": 4, "timeseries": 8, "row": 1}


def panel(title, unit, description, *queries, kind="timeseries", width=8, stacked=False):
    """A panel; each query is an expression, or an expression and a legend."""
    pairs = [(query, "") if isinstance(query, str) else query for query in queries]
    custom = {"fillOpacity": 10, "showPoints": "never"}
    if stacked:
        custom = {"fillOpacity": 50, "showPoints": "never", "stacking": {"mode": "percent", "group": "A"}}
    options = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list", "placement": "bottom"}}
    if kind == "stat":
        custom, options = {}, {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "width": width,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto"}
            for at, (expr, legend) in enumerate(pairs)
        ],
    }


def stat(title, unit, description, query):
    return panel(title, unit, description, query, kind="stat", width=4)


def row(title):
    return {"type": "row", "title": title, "width": COLUMNS, "collapsed": False, "panels": []}


def quantiles(metric, *quantile, by=""):
    """Queries of a histogram's quantiles, apart by a label if one is given."""
    labels = f"le, {by}" if by else "le"
    told = " {{%s}}" % by if by else ""
    return [
        (f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{%s}}[$__rate_interval])))", f"p{q * 100:g}{told}")
        for q in quantile
    ]


def rate(metric, *by, matchers=""):
    """The sum of a counter's rate, apart by labels."""
    apart = f" by ({', '.join(by)})" if by else ""
    legend = " ".join("{{%s}}" % label for label in by)
    return (f"sum{apart} (rate({metric}{{%s{matchers}}}[$__rate_interval]))", legend)


def variable(name, label, query, **more):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        **more,
    }


def of_weir(series):
    """Series that every process exports, of weir's workers alone: "All" jobs are also those of others."""
    return f"{series} and on (job, instance) weir_partitions_assigned{{%s}}"


def laid_out(panels):
    """From left to right, a line below the other."""
    x = y = line = 0
    placed = []
    for number, one in enumerate(panels, start=1):
        one = dict(one)
        width, height = one.pop("width"), HEIGHTS[one["type"]]
        if x + width > COLUMNS:
            x, y, line = 0, y + line, 0
        placed.append({"id": number, **one, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, line = x + width, max(line, height)
    return placed


def dashboard(name, title, description, panels, by_pool):
    matchers = POOL if by_pool else WORKERS
    for one in panels:
        for target in one.get("targets", []):
            target["expr"] = re.sub("%s", lambda _: matchers, target["expr"])
    base = "weir_partitions_assigned"
    variables = [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "default", "value": "default"},
        },
        variable("job", "Job", f"label_values({base}, job)"),
        variable("instance", "Instance", f'label_values({base}{{job=~"$job"}}, instance)'),
    ]
    if by_pool:
        variables.append(variable("pool", "Pool", f'label_values({base}{{job=~"$job"}}, pool)'))
    return {
        "uid": f"weir-{name}",
        "title": f"weir / {title}",
        "description": description,
        "tags": ["weir"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [
            {"type": "dashboards", "title": "weir", "tags": ["weir"], "asDropdown": False, "includeVars": True, "keepTime": True}
        ],
        "templating": {"list": variables},
        "panels": laid_out(panels),
    }


CONSUMED = "weir_events_consumed_total"
SETTLED = "weir_events_settled_total"
CPU_RATE = of_weir("rate(process_cpu_seconds_total{%s}[$__rate_interval])")

IN_AND_OUT = panel(
    "Events in and settled",
    "cps",
    "Events read from Kafka, redeliveries included, against events settled, by pipeline. In above settled for long: lag grows.",
    (rate(CONSUMED)[0], "in"),
    rate(SETTLED, "pipeline"),
)
LAG = panel(
    "Lag",
    "short",
    "Events between the ledger and the log's end, by topic. A topic without an answer from its broker has no series.",
    ("sum by (pool, topic) (weir_lag_events{%s})", "{{pool}} {{topic}}"),
)
AGE = panel(
    "Age of the oldest event",
    "s",
    "How old the oldest event is that is not settled, measured from its time stamp in Kafka.",
    ("max by (pool, topic) (weir_lag_seconds{%s})", "{{pool}} {{topic}}"),
)
END_TO_END = panel(
    "End to end",
    "s",
    "From an event's time stamp in Kafka until its effects are committed.",
    *quantiles("weir_end_to_end_seconds", 0.5, 0.99),
)
LOOP = panel(
    "Where the time goes",
    "s",
    "Parts of the partition tasks' time, by phase. Much poll: there is little to do. Much apply: the database. Much wait: an outage "
    "or a hold. Decode and dedupe may be the next batch's, beside apply.",
    rate("weir_loop_seconds_total", "phase"),
    stacked=True,
)
BATCHES = panel(
    "Batch size",
    "short",
    "Events in a batch, and the most that the next may have on the partition where that is least.",
    *quantiles("weir_batch_events", 0.5, 0.99),
    ("min(weir_batch_limit_events{%s})", "limit"),
)
TRANSACTIONS = panel(
    "Transaction",
    "s",
    "Time of a batch's transaction, from begin to commit.",
    *quantiles("weir_apply_duration_seconds", 0.5, 0.99),
)
PREPARE = panel(
    "Prepare",
    "s",
    "Time a pipeline takes to prepare a batch, outside the transaction.",
    *quantiles("weir_prepare_duration_seconds", 0.99, by="pipeline"),
)
WORKERS_WANTED = panel(
    "Workers, desired and actual",
    "short",
    "Workers of each pool that answer, and how many the pool asks for.",
    ("count by (pool) (weir_partitions_assigned{%s})", "{{pool}} actual"),
    ("sum by (pool) (weir_desired_replicas{%s})", "{{pool}} desired"),
)
CPU = panel(
    "Processor time",
    "short",
    "Processors that each worker keeps busy.",
    (f"sum by (instance) ({CPU_RATE})", "{{instance}}"),
)
MEMORY = panel(
    "Memory",
    "bytes",
    "Resident memory of each worker. It does not grow with the backlog.",
    (f"sum by (instance) ({of_weir('process_resident_memory_bytes{%s}')})", "{{instance}}"),
)
RETRIES = panel(
    "Retries",
    "cps",
    "Attempts that were repeated, by reason. assumed: a batch taken to be new was written the other way.",
    rate("weir_retries_total", "reason"),
)
REBALANCES = panel(
    "Rebalances",
    "short",
    "Rebalances of the group in each interval, on the worker that saw most. They belong to deploys and scaling.",
    ("max by (pool) (increase(weir_rebalances_total{%s}[$__rate_interval]))", "{{pool}}"),
)

OVERVIEW = [
    row("Now"),
    stat("Workers", "short", "Workers that answer.", "count(count by (instance) (weir_partitions_assigned{%s}))"),
    stat("Oldest event", "s", "Age of the oldest event that is not settled, of any pool.", "max(weir_lag_seconds{%s})"),
    stat(
        "Retention left",
        "s",
        "How long until Kafka may delete events that are not settled, where that is soonest; without lag the whole retention.",
        "min(weir_retention_left_seconds{%s})",
    ),
    stat("Held partitions", "short", "Partitions that wait for a person; /readyz has the reasons.", "sum(weir_holds{%s})"),
    stat(
        "Dead rows",
        "short",
        "Events set aside in the time shown.",
        "sum(increase(weir_dead_events_total{%s}[$__range]))",
    ),
    stat(
        "Dependencies away",
        "short",
        "Databases and Redis that do not answer, counted once a pool.",
        "sum(max by (pool, dependency) (weir_breaker_open{%s}))",
    ),
    row("Pools"),
    panel("Events in", "cps", "Events read from Kafka, redeliveries included, by pool.", rate(CONSUMED, "pool")),
    panel(
        "Events settled",
        "cps",
        "Events settled in each pipeline of each pool, whatever became of them.",
        rate(SETTLED, "pool", "pipeline"),
    ),
    panel(
        "End to end, p99",
        "s",
        "From an event's time stamp in Kafka until its effects are committed.",
        *quantiles("weir_end_to_end_seconds", 0.99, by="pool"),
    ),
    LAG,
    AGE,
    WORKERS_WANTED,
    row("Workers"),
    CPU,
    MEMORY,
    panel(
        "Partitions",
        "short",
        "Partitions assigned to each worker. Uneven for long: look at the rebalances.",
        ("sum by (instance) (weir_partitions_assigned{%s})", "{{instance}}"),
    ),
]

POOL_PANELS = [
    row("Flow"),
    IN_AND_OUT,
    LAG,
    AGE,
    panel(
        "Outcomes",
        "cps",
        "What became of events: applied, duplicate (the effect was there), filtered (not wanted) or dead.",
        rate(SETTLED, "pipeline", "outcome"),
    ),
    END_TO_END,
    panel(
        "Retention left",
        "s",
        "How long until Kafka may delete events of a topic that are not settled; without lag the whole retention. Nothing where "
        "a topic is kept for ever.",
        ("min by (topic) (weir_retention_left_seconds{%s})", "{{topic}}"),
    ),
    row("Batches"),
    LOOP,
    BATCHES,
    TRANSACTIONS,
    PREPARE,
    panel(
        "Transactions at a time",
        "short",
        "How many batches may be in a transaction now, by worker; only with transactions_max.",
        ("sum by (instance) (weir_transactions_limit{%s})", "{{instance}}"),
    ),
    panel(
        "Rate",
        "cps",
        "The group's configured rate, and the events that it reads; only with rate.",
        ("max(weir_rate_events_per_second{%s})", "configured"),
        (rate(CONSUMED)[0], "read"),
    ),
    row("Once"),
    panel(
        "Processed set",
        "cps",
        "Ids asked of the processed set. unknown: no answer in time. unverified: a hit that the database did not confirm, "
        "such as a bitmap's false positive.",
        rate("weir_processed_set_lookups_total", "result"),
        (rate("weir_processed_set_unmarked_total")[0], "not remembered"),
    ),
    RETRIES,
    panel(
        "Fences and claims",
        "cps",
        "Batches refused by the ledger since another worker had the partition, and partitions claimed.",
        (rate("weir_fences_total")[0], "fences"),
        (rate("weir_claims_total")[0], "claims"),
    ),
    row("Set aside"),
    panel(
        "Dead rows",
        "short",
        "Events set aside in each interval, by reason.",
        ("sum by (reason) (increase(weir_dead_events_total{%s}[$__rate_interval]))", "{{reason}}"),
    ),
    panel(
        "Dead rows replayed",
        "short",
        "Dead rows tried again in each interval: applied, settled (gone without an effect) or rejected again.",
        ("sum by (outcome) (increase(weir_dead_replayed_total{%s}[$__rate_interval]))", "{{outcome}}"),
    ),
    panel(
        "Waiting",
        "short",
        "Keys behind a rejected event, and dead rows without their letter in Kafka yet.",
        ("sum(weir_parked_keys{%s})", "parked keys"),
        ("max(weir_dead_unpublished{%s})", "letters to be sent"),
    ),
    panel(
        "Records without a value",
        "cps",
        "Tombstones, which on_tombstone skips or sets aside.",
        (rate("weir_tombstones_total")[0], "tombstones"),
    ),
    panel(
        "Held partitions",
        "short",
        "Partitions that wait for a person; /readyz has the reasons.",
        ("sum by (pool) (weir_holds{%s})", "{{pool}}"),
    ),
    panel(
        "Dependencies away",
        "short",
        "1 while the database or Redis does not answer some worker.",
        ("max by (dependency) (weir_breaker_open{%s})", "{{dependency}}"),
    ),
    row("Workers"),
    WORKERS_WANTED,
    panel(
        "Assignment",
        "short",
        "Partitions of the pool that each worker has.",
        ("sum by (instance) (weir_partitions_assigned{%s})", "{{instance}}"),
    ),
    REBALANCES,
    panel(
        "Offset commits",
        "cps",
        "Commits to Kafka, by result. Errors belong to rebalances; the ledger has the truth.",
        rate("weir_offset_commits_total", "result"),
    ),
    panel(
        "Ledger",
        "bytes",
        "Size of the ledger's table. It grows behind a transaction that stays open; only where the database tells it.",
        ("max(weir_ledger_bytes{%s})", "weir_ledger"),
    ),
]

LOAD = [
    row("Throughput"),
    IN_AND_OUT,
    LAG,
    AGE,
    row("Latency"),
    panel(
        "End to end",
        "s",
        "From an event's time stamp in Kafka until its effects are committed. `weir load` itself measures from the intended send time.",
        *quantiles("weir_end_to_end_seconds", 0.5, 0.9, 0.99, 0.999),
    ),
    TRANSACTIONS,
    PREPARE,
    row("Where it is spent"),
    LOOP,
    BATCHES,
    RETRIES,
    row("What it costs"),
    CPU,
    panel(
        "Processor time of an event",
        "s",
        "Processor time of all workers by events read.",
        (f"sum({CPU_RATE}) / {rate(CONSUMED)[0]}", "an event"),
    ),
    MEMORY,
    row("Membership"),
    WORKERS_WANTED,
    REBALANCES,
    panel(
        "Fences",
        "cps",
        "Batches refused by the ledger since another worker had the partition: its work was undone.",
        rate("weir_fences_total", "pool"),
    ),
]


def files():
    shown = [
        ("overview", "Overview", "All pools beside each other: is anything behind, held or away?", OVERVIEW, False),
        ("pool", "Pool", "One pool in depth: flow, batches, what was set aside, membership.", POOL_PANELS, True),
        ("load", "Load", "A load run: throughput, latency, where the time is spent and what it costs.", LOAD, False),
    ]
    for name, title, description, panels, by_pool in shown:
        made = dashboard(name, title, description, json.loads(json.dumps(panels)), by_pool)
        yield FOLDER / f"{name}.json", json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    for path, text in files():
        if not sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what scripts/dashboards.py writes: change the script and run it")


main()
