"""The scripts that start many instances: of one by its number, of a machine, and the router in front of all."""

from __future__ import annotations

from collections.abc import Sequence

from placement.engines.launch.base import Launcher
from placement.engines.launch.scripts import PORTS
from placement.engines.launch.seats import COLUMNS, FILE
from placement.engines.launch.site import Site

INSTANCE, HOST, ROUTER = "instance.sh", "host.sh", "router.sh"
#: Where the router serves.
ROUTER_PORT = 8080
#: Ports of two instances on one machine lie so far apart: an engine takes some beside those that it is told.
STEPS = {"PORT": 1, "RENDEZVOUS_PORT": 100, "RANKS_PORT": 100, "TRANSFER_PORT": 100}
#: A line of hosts.txt, by its number from 0 on.
_ADDRESS = """address() { sed -n "$(( $1 + 1 ))p" "$HOSTS"; }
"""
_HOSTS = """: "${HOSTS:=$ROOT/hosts.txt}"
"""
_THERE = '[ -r "$HOSTS" ] || { echo "$HOSTS: is not there; write one machine a line, as README.md says" >&2; exit 2; }'


def instance_script(launcher: Launcher) -> str:
    """What a launch script reads where INSTANCE is set: machines, GPUs and ports of that instance."""
    # Nodes meet on node 0's ports; for KV caches each node has its own.
    seats = {name: "seat" if name == "TRANSFER_PORT" else "head_seat" for name in PORTS}
    ports = "\n".join(
        f"export {name}=$(( ${{{name}:-{port}}} + {STEPS[name]} * {seats[name]} ))" for name, port in PORTS.items()
    )
    return f"""# Read by launch scripts where INSTANCE is set: `. {INSTANCE} ROLE NODE`.
# Takes machines, GPUs and ports of that instance from {FILE} and hosts.txt.
ROOT="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
{_HOSTS}{_ADDRESS}{_THERE}
row="$(grep "^$1,$INSTANCE,$2," "$ROOT/{FILE}" || true)"
[ -n "$row" ] || {{ echo "{FILE}: has no instance $INSTANCE of $1" >&2; exit 2; }}
IFS=, read -r {" ".join(COLUMNS)} <<< "$row"
NODE_ADDRESS="$(address "$host")" HEAD_ADDRESS="$(address "$head")"
[ -n "$NODE_ADDRESS" ] && [ -n "$HEAD_ADDRESS" ] || {{ echo "$HOSTS: lacks host $host or $head" >&2; exit 2; }}
export NODE_ADDRESS HEAD_ADDRESS
export {launcher.devices}="$(seq -s, "$first_gpu" "$(( first_gpu + gpus - 1 ))")"
{ports}
"""


def host_script(sites: Sequence[Site]) -> str:
    """Starts what one machine holds of these roles, and says on stderr what fails while the others run on."""
    names = " ".join(site.folder for site in sites)
    return f"""#!/usr/bin/env bash
# Starts all that {FILE} puts on one machine: `bash {HOST} N`, its line in hosts.txt counted from 0.
# Each instance's log is written to the current folder. Fails where one of them does, and says which log tells why.
set -euo pipefail
ROOT="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
[ "$#" -eq 1 ] || {{ echo "usage: {HOST} N, the number of the machine in hosts.txt, from 0 on" >&2; exit 2; }}
{_HOSTS}{_THERE}
# Numbers in order as ranges.
ranges() {{
  local first="$1" last="$1" told="" each
  for each in "${{@:2}}" ""; do
    [ "$each" != "$(( last + 1 ))" ] || {{ last="$each"; continue; }}
    told+=", $first"
    [ "$first" = "$last" ] || told+=" to $last"
    first="$each" last="$each"
  done
  echo "${{told:2}}"
}}
# One OS node of an instance, until it ends: ROLE INSTANCE NODE.
start() {{
  local log="$1-$2-$3.log" code=0 engine=
  trap 'kill $engine 2>/dev/null || true; wait; exit 143' TERM
  INSTANCE="$2" bash "$ROOT/$1/node-$3.sh" > "$log" 2>&1 &
  engine="$!"
  wait "$engine" || code="$?"
  [ "$code" -eq 0 ] || echo "{HOST}: $1 $2 ended with exit code $code; see $PWD/$log" >&2
  exit "$code"
}}
trap 'kill $(jobs -p) 2>/dev/null' INT TERM
hosts=() started=() failed=0
while IFS=, read -r role instance node host _; do
  [[ " {names} " = *" $role "* ]] || continue
  hosts[host]="$host"
  [ "$host" = "$1" ] || continue
  start "$role" "$instance" "$node" &
  started+=("$!")
done < "$ROOT/{FILE}"
[ "${{#started[@]}}" -gt 0 ] || {{
  echo "{HOST}: machine $1 holds nothing; take one of $(ranges "${{hosts[@]}}")" >&2
  exit 2
}}
for each in "${{started[@]}}"; do wait "$each" || failed="$?"; done
exit "$failed"
"""


def router_script(launcher: Launcher, sites: Sequence[Site]) -> str:
    """What sends each request to an instance of each role; "" where the engine brings none."""
    body = launcher.router(sites)
    if not body:
        return ""
    names = list(dict.fromkeys(site.role.role.upper() for site in sites))
    port, transfer = (f"${{{name}:-{PORTS[name]}}} + {STEPS[name]} * seat" for name in ("PORT", "TRANSFER_PORT"))
    return f"""#!/usr/bin/env bash
# Sends requests to the instances of {FILE}, which are on the machines of hosts.txt; or, where the variables
# {" and ".join(names)} hold addresses of the instances, to these.
set -euo pipefail
ROOT="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
{_HOSTS}{_ADDRESS}[ -n "{"".join(f"${{{name}:-}}" for name in names)}" ] || {{
  {_THERE}
  last="$(cut -d, -f4 "$ROOT/{FILE}" | sort -n | tail -n 1)"
  [ -n "$(address "$last")" ] || {{ echo "$HOSTS: lacks host $last" >&2; exit 2; }}
}}
: "${{ROUTER_PORT:={ROUTER_PORT}}}"
# Address, port and port for KV caches of node 0 of each instance of a role.
servers() {{
  local name="${{1^^}}" seat=0 each
  for each in ${{!name:-}}; do echo "$each $(( {port} )) $(( {transfer} ))"; done
  [ -z "${{!name:-}}" ] || return 0
  while IFS=, read -r role _ node host _ _ seat _; do
    [[ "$node" = 0 && ( "$role" = "$1" || "$role" = "$1"-* ) ]] || continue
    echo "$(address "$host") $(( {port} )) $(( {transfer} ))"
  done < "$ROOT/{FILE}"
}}
{body}"""
