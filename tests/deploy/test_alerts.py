"""The alerts, by Prometheus' own tools."""

import re
import unittest

import yaml
from tools import ROOT, run

RULES = ROOT / "alerts/weir.yaml"
TESTS = ROOT / "tests/deploy/alerts_test.yaml"


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


class Alerts(unittest.TestCase):
    def test_the_rules_are_valid(self):
        done = run("promtool", "check", "rules", RULES)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_they_fire_and_stay_silent_when_they_should(self):
        done = run("promtool", "test", "rules", TESTS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(self):
        fires, silent = set(), set()
        for case in yaml.safe_load(TESTS.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
        names = {rule["alert"] for rule in rules()}
        self.assertEqual((fires, silent), (names, names))

    def test_each_says_what_it_is_and_what_to_do(self):
        runbook = (ROOT / "docs/runbook.md").read_text()
        sections = set(re.findall(r"^### (Weir\w+)$", runbook, re.MULTILINE))
        self.assertEqual(sections, {rule["alert"] for rule in rules()})
        for rule in rules():
            with self.subTest(rule["alert"]):
                self.assertTrue(rule["alert"].startswith("Weir"))
                self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbook.md#{rule['alert'].lower()}")

    def test_the_dashboards_are_as_their_script_writes_them(self):
        done = run("python3", ROOT / "scripts/dashboards.py", "--check")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
