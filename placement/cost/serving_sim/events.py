"""The event loop, compiled: arrivals, prefill passes, runs of decode steps, and KV caches that move between servers.

A server works off its line in order. Whoever waits when it is free shares the next prefill pass, up to its budget;
prompts come before decoding. A run of decode steps lasts until a sequence ends or a prompt comes, so that time passes
in few events. What other ranks' prefills hold a rank up is waited out before it decodes again, and prompts that come
meanwhile are prefilled at once.
"""

from __future__ import annotations

import numpy as np

from placement.cost.serving_sim.queues import pop, push, set_key
from placement.cost.serving_sim.state import (
    BUSY,
    HELD,
    IDLE,
    NOBODY,
    PASS,
    RUN,
    Desk,
    Loop,
)
from placement.cost.serving_sim.tables import pass_s, step_s
from placement.kernels import lean, lean_kernel

INF = np.inf
#: Tokens of a prompt that count as none.
NOTHING = 1e-6


@lean
def choose(desk: Desk, draw: float) -> int:
    """The server that gets a request."""
    if not desk.random[0]:
        least: int = desk.load.winner[1]
        return least
    low, high = 0, len(desk.servers) - 1
    while low < high:
        middle = (low + high) // 2
        if draw < desk.rises[middle]:
            high = middle
        else:
            low = middle + 1
    drawn: int = desk.servers[low]
    return drawn


@lean
def book(desk: Desk, server: int, requests: int) -> None:
    """Counts requests that come to a server, or leave it."""
    if requests > 0 or desk.leaves[0]:
        set_key(desk.load, server, desk.load.key[server] + requests * desk.step[server])


@lean
def room_for(loop: Loop, server: int, request: int) -> bool:
    """Whether a server can hold one more sequence."""
    servers, kind = loop.servers, loop.servers.kind[server]
    if servers.used[server] >= loop.kinds.slots[kind]:
        return False
    fits: bool = servers.kept[server] + loop.sizes.stored[kind, request] <= loop.kinds.room[kind]
    return fits


@lean
def enter(loop: Loop, server: int, request: int, now: float) -> None:
    """Puts a request at the end of a server's line; the server begins, or ends its run of steps at the next one."""
    servers = loop.servers
    if servers.first[server] == NOBODY:
        servers.first[server] = request
    else:
        loop.requests.after[servers.last[server]] = request
    servers.last[server] = request
    loop.requests.after[request] = NOBODY
    does = servers.does[server]
    if does == IDLE:
        begin(loop, server, now)
    elif does == HELD and room_for(loop, server, servers.first[server]):
        servers.owed_s[server] = loop.due.key[server] - now
        begin(loop, server, now)
    elif does == RUN and room_for(loop, server, servers.first[server]):
        steps = np.ceil((now - servers.since[server]) / servers.step_s[server])
        if steps < servers.run[server]:
            servers.run[server] = steps
            set_key(loop.due, server, servers.since[server] + steps * servers.step_s[server])


@lean
def take_first(loop: Loop, server: int) -> int:
    """Takes the first of a server's line."""
    servers = loop.servers
    request: int = servers.first[server]
    servers.first[server] = loop.requests.after[request]
    return request


@lean
def let_in(loop: Loop, server: int, request: int) -> None:
    """Gives a request a sequence's place."""
    servers = loop.servers
    servers.used[server] += 1
    servers.kept[server] += loop.sizes.stored[servers.kind[server], request]


@lean
def join(loop: Loop, server: int, request: int, now: float) -> None:
    """A request that has its place begins to decode."""
    servers, requests = loop.servers, loop.requests
    requests.joined[request] = now
    end = servers.steps[server] + requests.osl[request]
    push(servers.ends, servers.who, servers.base[server], servers.active[server], end, request)
    servers.active[server] += 1
    servers.context[server] += requests.context[request]


@lean
def next_pass(loop: Loop, server: int, now: float) -> bool:
    """Begins a prefill pass with those who wait; False where there is nobody, or no room."""
    kinds, servers, requests = loop.kinds, loop.servers, loop.requests
    kind = servers.kind[server]
    budget = kinds.budget[kind]
    total, weighted, count, leaving = 0.0, 0.0, 0, 0
    request = servers.first[server]
    while request != NOBODY and total < budget - NOTHING:
        if count == servers.entered[server]:
            if kinds.decodes[kind]:
                if not room_for(loop, server, request):
                    break
                let_in(loop, server, request)
            servers.entered[server] += 1
            requests.began[request] = now
        taken = min(requests.left[request], budget - total)
        requests.taken[request] = taken
        requests.left[request] -= taken
        total += taken
        weighted += taken * requests.isl[request]
        count += 1
        if requests.left[request] <= NOTHING:
            leaving += 1
        request = requests.after[request]
    if count == 0:
        return False
    length = weighted / total if total > 0.0 else 0.0
    seconds = pass_s(kinds.pass_s[kind], kinds.lengths, total / budget, length)
    request = servers.first[server]
    for _ in range(count):
        if total > 0.0:
            requests.work[request] += seconds * requests.taken[request] / total
        request = requests.after[request]
    servers.leaving[server] = leaving
    servers.since[server] = now
    servers.through_s[server] = pass_s(kinds.through_s[kind], kinds.lengths, total / budget, length)
    servers.owed_s[server] += (kinds.stall[kind] - 1.0) * seconds
    servers.does[server] = PASS
    set_key(loop.due, server, now + seconds)
    return True


@lean
def begin(loop: Loop, server: int, now: float) -> None:
    """What a server does next."""
    kinds, servers = loop.kinds, loop.servers
    kind = servers.kind[server]
    if kinds.prefills[kind]:
        if next_pass(loop, server, now):
            return
    else:
        while servers.first[server] != NOBODY and room_for(loop, server, servers.first[server]):
            request = take_first(loop, server)
            let_in(loop, server, request)
            join(loop, server, request, now)
    active = servers.active[server]
    if active == 0:
        servers.owed_s[server] = 0.0
        servers.does[server] = IDLE
        set_key(loop.due, server, INF)
    elif servers.owed_s[server] > 0.0:
        servers.does[server] = HELD
        set_key(loop.due, server, now + servers.owed_s[server])
    else:
        seconds = step_s(kinds, kind, active, servers.context[server] / active)
        servers.does[server] = RUN
        servers.since[server] = now
        servers.step_s[server] = seconds
        servers.run[server] = servers.ends[servers.base[server]] - servers.steps[server]
        set_key(loop.due, server, now + servers.run[server] * seconds)


@lean
def arrive(loop: Loop, request: int, now: float) -> None:
    """A request comes: to a server that prefills, or, where it is prefilled or there is none, to one that decodes."""
    loop.requests.arrival[request] = now
    loop.issued[0] += 1
    server = NOBODY if len(loop.prefill.servers) == 0 else choose(loop.prefill, loop.requests.draws[request, 0])
    if server == NOBODY or (loop.requests.left[request] == 0.0 and not loop.kinds.decodes[loop.servers.kind[server]]):
        hand_over(loop, request, choose(loop.decode, loop.requests.draws[request, 1]), now)
        return
    loop.requests.server[request, 0] = server
    book(loop.prefill, server, 1)
    if loop.kinds.decodes[loop.servers.kind[server]] and not room_for(loop, server, request):
        loop.requests.blocked[request] = now
    enter(loop, server, request, now)


@lean
def hand_over(loop: Loop, request: int, server: int, now: float) -> None:
    """A prefilled request comes to a server that decodes."""
    loop.requests.server[request, 1] = server
    book(loop.decode, server, 1)
    land(loop, request, now)


@lean
def land(loop: Loop, request: int, now: float) -> None:
    """A prefilled request has come to its decode server, with its KV cache."""
    server = loop.requests.server[request, 1]
    enter(loop, server, request, now)
    if loop.servers.does[server] == RUN and room_for(loop, server, loop.servers.first[server]):
        loop.requests.blocked[request] = loop.due.key[server]
    else:
        loop.requests.blocked[request] = now


@lean
def move(loop: Loop, request: int, now: float) -> None:
    """Sends the KV cache of a prefilled request to a decode server over the links of both."""
    kinds, servers, requests = loop.kinds, loop.servers, loop.requests
    source = requests.server[request, 0]
    kind = servers.kind[source]
    out = kinds.link_s[kind] * loop.sizes.moved[kind, request]
    start = max(requests.ready[request], servers.link_free[source])
    servers.link_free[source] = start + out
    done = start + out
    draw = requests.draws[request, 1]
    here = len(loop.decode.servers) > 0 and draw < loop.share[0]
    if here:
        target = choose(loop.decode, draw / loop.share[0])
        requests.server[request, 1] = target
        book(loop.decode, target, 1)
        into = kinds.link_s[servers.kind[target]] * loop.sizes.moved[servers.kind[target], request]
        open_at = max(start, servers.link_free[target])
        servers.link_free[target] = open_at + into
        done = max(done, open_at + into)
    requests.seen[request] += kinds.own_scale[kind] * out + (done - out - requests.ready[request])
    if here:
        when = max(now, requests.arrival[request] + requests.seen[request])
        push(loop.moving.when, loop.moving.who, 0, loop.moving.held[0], when, request)
        loop.moving.held[0] += 1
    else:
        leave(loop, now)


@lean
def leave(loop: Loop, now: float) -> None:
    """A request is done; in a closed loop the next one comes."""
    if loop.known[0] <= loop.issued[0] < len(loop.requests.arrival):
        arrive(loop, loop.issued[0], now)


@lean
def prefilled(loop: Loop, server: int, now: float) -> None:
    """A pass is over: whose last it was have their first token."""
    kinds, servers, requests = loop.kinds, loop.servers, loop.requests
    kind = servers.kind[server]
    ready = servers.since[server] + servers.through_s[server]
    for _ in range(servers.leaving[server]):
        request = take_first(loop, server)
        servers.entered[server] -= 1
        requests.ready[request] = ready
        waiting = requests.began[request] - requests.arrival[request]
        if np.isnan(requests.blocked[request]):
            waiting *= kinds.wait_scale[kind]
        own = kinds.own_scale[kind] * (ready - requests.began[request])
        requests.seen[request] = kinds.ahead_s[kind] + waiting + own
        if kinds.decodes[kind]:
            join(loop, server, request, now)
        else:
            book(loop.prefill, server, -1)
            move(loop, request, now)


@lean
def stepped(loop: Loop, server: int, now: float) -> None:
    """A run of decode steps is over: some sequences may have ended."""
    servers, requests = loop.servers, loop.requests
    kind, base = servers.kind[server], servers.base[server]
    servers.steps[server] += servers.run[server]
    while servers.active[server] > 0 and servers.ends[base] <= servers.steps[server]:
        request = servers.who[base]
        pop(servers.ends, servers.who, base, servers.active[server])
        servers.active[server] -= 1
        servers.used[server] -= 1
        servers.kept[server] -= loop.sizes.stored[kind, request]
        servers.context[server] -= requests.context[request]
        requests.finished[request] = now
        if loop.kinds.prefills[kind]:
            book(loop.prefill, server, -1)
        else:
            book(loop.decode, server, -1)
        leave(loop, now)


@lean
def work_off(loop: Loop, server: int, now: float) -> None:
    """The next event of a server."""
    servers = loop.servers
    did = servers.does[server]
    servers.does[server] = BUSY
    if did == PASS:
        prefilled(loop, server, now)
    elif did == RUN:
        stepped(loop, server, now)
    else:
        servers.owed_s[server] = 0.0
    begin(loop, server, now)


@lean_kernel
def run(loop: Loop, until: float) -> None:
    """Runs the simulation to a time, or to its end: in a closed loop until the last request has come."""
    endless = loop.known[0] < len(loop.requests.arrival)
    while not (endless and loop.issued[0] == len(loop.requests.arrival)):
        server = loop.due.winner[1]
        working = loop.due.key[server]
        moving = loop.moving.when[0] if loop.moving.held[0] > 0 else INF
        coming = loop.requests.arrival[loop.issued[0]] if loop.issued[0] < loop.known[0] else INF
        now = min(working, moving, coming)
        if now > until or now == INF:
            return
        if now == working:
            work_off(loop, server, now)
        elif now == moving:
            request = loop.moving.who[0]
            pop(loop.moving.when, loop.moving.who, 0, loop.moving.held[0])
            loop.moving.held[0] -= 1
            land(loop, request, now)
        else:
            arrive(loop, loop.issued[0], now)
