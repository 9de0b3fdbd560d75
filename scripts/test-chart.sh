#!/usr/bin/env bash
# The tests of what deploys weir: the chart, the alerts, the image's files, the composition.   test-chart.sh [TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD/tests/deploy:$PWD/scripts PYTHONDONTWRITEBYTECODE=1
if [ $# -gt 0 ]; then
  exec scripts/chart-tools.sh python -m unittest "$@"
fi
exec scripts/chart-tools.sh python -m unittest discover -s tests/deploy
