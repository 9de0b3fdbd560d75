#!/usr/bin/env python3
"""Writes what the chart derives from other files: make chart-derived. Needs PyYAML.

- helm/weir/README.md: the table of values, from the comments of values.yaml.
- helm/weir/values.schema.json: the definition `weir`, from the keys of config/weir.toml.
"""

import json
import pathlib
import re
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "helm/weir/README.md"
SCHEMA = ROOT / "helm/weir/values.schema.json"
BEGIN, END = "<!-- values: scripts/chart_derived.py -->\n", "<!-- end of values -->"

# ---- the table of values ---------------------------------------------------------------------------------------------


def documented(lines):
    """The path and the comment of each key above which a comment begins with `# --`."""
    above, comment = [], None
    for line in lines:
        text = line.strip()
        if text.startswith("# -- "):
            comment = text[5:]
        elif text.startswith("# ") and comment is not None:
            comment += " " + text[2:]
        else:
            key = re.match(r"^( *)([A-Za-z_]+):", line)
            if key:
                above = [*above[: len(key[1]) // 2], key[2]]
                if comment is not None:
                    yield tuple(above), comment
            comment = None


def table():
    text = (ROOT / "helm/weir/values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    yield "| value | default | what it is |\n|---|---|---|\n"
    for path, comment in documented(text.splitlines()):
        default = values
        for key in path:
            default = default[key]
        shown = json.dumps(default).replace("|", "\\|")
        yield f"| `{'.'.join(path)}` | `{shown}` | {comment.replace('|', chr(92) + '|')} |\n"


def readme():
    """The chart's README with the table as it should be."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "".join(table()) + "\n" + END + after


# ---- weir's keys -----------------------------------------------------------------------------------------------------

# Tables whose keys are names of the user's choice.
NAMED = {"pools", "lookups", "columns", "options"}
# What is the chart's business: the pod's name, and the files of `secrets`.
OF_THE_CHART = {"kafka.group_instance_id", "store.url_file", "redis.url_file"}
REQUIRED = {
    "": ["kafka", "store", "redis", "health", "pools"],
    "kafka": ["brokers"],
    "health": ["listen"],
    "pools.*": ["topics", "start", "pipelines"],
    "pools.*.pipelines": ["name", "handler"],
}
# What the chart reads itself, and so must be able to.
MORE = {
    "kafka.brokers": {"minItems": 1},
    "health.listen": {"pattern": ":[0-9]+$"},
    "pools": {"minProperties": 1, "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", "maxLength": 40}},
    "pools.*.topics": {"minItems": 1},
    "pools.*.pipelines": {"minItems": 1},
}


def weirs_keys():
    """The documented configuration, with the keys and sections that stand behind '#' brought to the front."""
    text = (ROOT / "config/weir.toml").read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"(?m)^# ([a-z_]+ = |\[{1,2}pools\.[^ ]*\]$)", r"\1", text))


def merged(tables):
    """All keys of a list of tables, each with its first value."""
    return {key: value for each in reversed(tables) for key, value in each.items()}


def shape(value, path):
    """The schema of a value, by the example that the documentation has."""
    more = MORE.get(path, {})
    if isinstance(value, dict) and path.rsplit(".", 1)[-1] in NAMED:
        below = [shape(each, f"{path}.*") for each in value.values()]
        free = {"type": ["string", "number", "boolean"]}
        return {"type": "object", "additionalProperties": free if path == "kafka.options" else below[0], **more}
    if isinstance(value, dict):
        names = {key: f"{path}.{key}".removeprefix(".") for key in value}
        properties = {key: shape(value[key], name) for key, name in names.items() if name not in OF_THE_CHART}
        required = {"required": REQUIRED[path]} if path in REQUIRED else {}
        return {"type": "object", "additionalProperties": False, "properties": properties, **required}
    if isinstance(value, list):
        items = shape(merged(value), path) if isinstance(value[0], dict) else shape(value[0], "")
        return {"type": "array", "items": items, **more}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, str):
        # Sizes and rates are texts with a unit, or numbers.
        is_amount = re.fullmatch(r"\d+([KMG]iB|/[sm])", value)
        return {"type": ["string", "number"] if is_amount else "string", **more}
    return {"type": "integer" if isinstance(value, int) else "number", "minimum": 0}


def printed(value, indent=0):
    """JSON with what is short on one line."""
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(line) + indent <= 118:
        return line
    space = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{space}{json.dumps(key)}: {printed(below, indent + 2)}" for key, below in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(space + printed(below, indent + 2) for below in value) + "\n" + " " * indent + "]"


def schema():
    """The chart's schema with weir's keys as they should be."""
    found = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found["definitions"]["weir"] = shape(weirs_keys(), "")
    return printed(found) + "\n"


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
