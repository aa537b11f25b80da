"""A smoke test: that the server is ready, and that the model answers right, which a wrong weight would break."""

from __future__ import annotations

from placement.engines.launch.scripts import PORTS

_SCRIPT = r"""#!/usr/bin/env bash
# Asks the server questions whose answers are known; exits with 1 and the answer where one is wrong.
# usage: smoke.sh [HOST [PORT]]; MODEL_NAME where the server knows the model by another name than its first.
set -euo pipefail
URL="http://${1:-127.0.0.1}:${2:-@PORT@}"
curl -fsS --max-time 10 "$URL/health" > /dev/null || { echo "not ready: $URL/health"; exit 1; }
read_json() { python3 -c "import json, sys; print(json.load(sys.stdin)$1 or '')"; }
NAME="${MODEL_NAME:-$(curl -fsS --max-time 10 "$URL/v1/models" | read_json '["data"][0]["id"]')}"

ask() { # question, what the answer must hold
  local body answer
  body="$(python3 -c 'import json, sys; print(json.dumps({"model": sys.argv[1], "temperature": 0, "max_tokens": 2048,
    "messages": [{"role": "user", "content": sys.argv[2]}]}))' "$NAME" "$1")"
  answer="$(curl -fsS --max-time 120 "$URL/v1/chat/completions" -H 'Content-Type: application/json' -d "$body" |
    read_json '["choices"][0]["message"]["content"]')"
  if grep -qiwF -- "$2" <<< "$answer"; then
    echo "ok: $2"
  else
    echo "wrong: $1 -> ${answer:-nothing}, which lacks $2"
    return 1
  fi
}

# Different subjects, so that experts of several kinds are asked; at the same time, so that steps have batches.
pids=()
ask "What is 17 + 25? Answer with the number only." 42 & pids+=($!)
ask "What is the capital of France? Answer with one word." Paris & pids+=($!)
ask "Which word is the opposite of 'cold'? Answer with one word." hot & pids+=($!)
ask "What does print(len('expert')) print in Python? Answer with the number only." 6 & pids+=($!)
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
"""


def smoke_script() -> str:
    """The test as a bash script; it needs curl and python3."""
    return _SCRIPT.replace("@PORT@", str(PORTS["PORT"]))
