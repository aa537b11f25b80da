"""What the compiled event loop works on, in parts: a compiled function takes the longer to compile the more arrays it
is given. A request or server is an index; no request is NOBODY.
"""

from __future__ import annotations

from typing import NamedTuple

from placement.problem.arrays import BoolArray, FloatArray, IntArray

NOBODY = -1
#: What a server does. BUSY: an event of it is being worked on.
IDLE, PASS, RUN, HELD, BUSY = range(5)


class Kinds(NamedTuple):
    """[kinds] prices and limits.

    Attributes:
        prefills, decodes: what a server does.
        slots: most sequences. room: most KV cache, in requests of the workload's lengths.
        budget: tokens of a pass. stall: time that prefills hold decoding up, over that of the server's own passes.
        ahead_s, wait_scale, own_scale: time to the first token as a user sees it: ahead + wait_scale * waiting for
            a pass + own_scale * passes.
        link_s: that the KV cache of a prompt of the workload's length takes the server's links.
        decode_s: [kinds, contexts, sequences]; contexts: [contexts].
        pass_s, through_s: [kinds, lengths, steps of the budget] of a server, and over all stages; lengths: [lengths].
    """

    prefills: BoolArray
    decodes: BoolArray
    slots: IntArray
    room: FloatArray
    budget: FloatArray
    stall: FloatArray
    ahead_s: FloatArray
    wait_scale: FloatArray
    own_scale: FloatArray
    link_s: FloatArray
    contexts: FloatArray
    decode_s: FloatArray
    lengths: FloatArray
    pass_s: FloatArray
    through_s: FloatArray


class Requests(NamedTuple):
    """[requests] what comes, and what becomes of it; times in seconds, nan where it did not come so far.

    Attributes:
        arrival: ascending; in a closed loop all but the first ones' are filled in.
        isl, osl, context: tokens.
        draws: [requests, 2] uniform: which server prefills and which decodes.
        began: its first pass. ready: its first token has left the last stage. seen: TTFT, less a wait to decode.
        blocked: since when it waits for a sequence's place, not for a pass or step to end.
        joined, finished: its decoding. work: seconds of passes, shared passes by tokens.
        server: [requests, 2] that prefilled and that decoded it.
        left: tokens that no pass has taken. taken: by the pass under way. after: the next in a server's line.
    """

    arrival: FloatArray
    isl: FloatArray
    osl: FloatArray
    context: FloatArray
    draws: FloatArray
    began: FloatArray
    ready: FloatArray
    seen: FloatArray
    blocked: FloatArray
    joined: FloatArray
    finished: FloatArray
    work: FloatArray
    server: IntArray
    left: FloatArray
    taken: FloatArray
    after: IntArray


class Sizes(NamedTuple):
    """[kinds, requests] KV cache of a request: whole, and what its prompt leaves to move; over the workload's."""

    stored: FloatArray
    moved: FloatArray


class Servers(NamedTuple):
    """[servers] what they do.

    Attributes:
        kind: its kind. does: IDLE, PASS, RUN, HELD or BUSY.
        first, last: its line. entered: how many of the line's first have been let in; leaving: have their last pass.
        active: sequences that decode. used, kept: slots and KV cache taken. context: summed over the active.
        steps: decode steps done. run: steps of the run under way, since `since`, of `step_s` each.
        through_s: from the start of the pass to its first tokens. owed_s: prefills of others to be waited out.
        link_free: when its links can take the next KV cache.
        base: where its part of the heap of ends begins; ends, who: that heap: decode steps at which a sequence ends.
    """

    kind: IntArray
    does: IntArray
    first: IntArray
    last: IntArray
    entered: IntArray
    leaving: IntArray
    active: IntArray
    used: IntArray
    kept: FloatArray
    context: FloatArray
    steps: FloatArray
    run: FloatArray
    since: FloatArray
    step_s: FloatArray
    through_s: FloatArray
    owed_s: FloatArray
    link_free: FloatArray
    base: IntArray
    ends: FloatArray
    who: IntArray


class Line(NamedTuple):
    """A tournament: which of the servers has the least key. key: [leaves], inf for none; winner: [2 * leaves]."""

    key: FloatArray
    winner: IntArray


class Desk(NamedTuple):
    """Who of a stage's servers gets the next request.

    Attributes:
        servers: [n] of the stage. rises: [n] ascending shares of the requests up to each one's.
        step: [servers] what one request adds to a server's key. load: by that key.
        random: by a draw; else by the least key. leaves: whether a request that has left counts no more.
    """

    servers: IntArray
    rises: FloatArray
    step: FloatArray
    load: Line
    random: BoolArray
    leaves: BoolArray


class Moving(NamedTuple):
    """KV caches on their way: a heap of times, of whom, and how many there are (the only entry of `held`)."""

    when: FloatArray
    who: IntArray
    held: IntArray


class Loop(NamedTuple):
    """The whole simulation.

    Attributes:
        share: [1] of the prefilled requests that the simulated decode servers get.
        due: when each server's next event is.
        issued: [1] requests that have come. known: [1] of them with an arrival of their own; the others come as
            others finish.
    """

    kinds: Kinds
    requests: Requests
    sizes: Sizes
    servers: Servers
    due: Line
    prefill: Desk
    decode: Desk
    moving: Moving
    share: FloatArray
    issued: IntArray
    known: IntArray
