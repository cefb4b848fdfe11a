"""Who is a member: the one thing that is voted on. Data never waits for a vote.

A group's membership is a line of configurations; the next one is decided by a quorum of the members of the one before (``register``,
``decision``), from changes that somebody ordered (``changes``) or that follow from what all say (``due``). A replica acts on a
configuration once that is in its log (``notes``), speaks in the order of that configuration (``shape``), and is held against what others
remember of it (``claims``). ``membership`` puts these together.

Why the stable vector stays true. Law L7: whenever a commit ``c`` of ``o`` is applied at ``i``, its deps are at least ``S_i``. ``S_i`` was
computed in some configuration K from rows that all members of K made after they had adopted K, all of them usable, that is, with nothing
in them that ``i`` did not have. Let ``c`` be applied later.

1. ``o`` is a member of K. ``i`` had everything in the row that ``o`` made in K, so ``c``, which was not there yet, was issued after that
   row: its deps are at least that row, and that is at least ``S_i``.
2. ``o`` was removed before K. The members of K made their rows after adopting K. From then on none of them takes a commit of ``o`` from
   anybody but another member of K: only equal configuration ids count, what waited in buffers was dropped, and the id never returns. What
   no row held, no member held, so it cannot enter. If a row held ``c``, then ``i`` had it already, since the row was usable.
3. ``o`` joined after K. It took its state from a sender's checkpoint which was begun after the sender had adopted a configuration that
   names ``o``, so later than K. By induction over senders that one made its row in K before (or is itself of case 3, with an earlier
   sender): its vector at that moment was at least its row, hence at least ``S_i``, and all that ``o`` issues has seen that vector.

Why all have the same finals. F is proposed for a removed ``m`` only in a configuration in which the proposer had usable rows of all other
members, each with the entry F for ``m``, equal to its own, and the decision holds in that configuration only. By 2 no member gets another
commit of ``m`` after its row. So whoever adopts the final as a member has F commits of ``m``, and who joins later takes its state from one
that does.

Why nothing that was promised is promised away. Rows name only what is durable, and nothing is said between adopting a configuration and
its being durable; the record of the adoption stands in the log behind all commits that were applied before it. So the first row in K holds
everything that this replica had applied before it adopted K: a final cannot be below what a member already has.

One configuration per id. Within an epoch a number is decided once (``register``). An operator's force begins an epoch with a random nonce,
so what it decides has another id than anything the others may decide; two such lines refuse each other.

Fuzzed by ``crdtstore sim fuzz --faults members``; the planted bugs of ``crdtstore sim planted`` show that each clause is needed.

Source: DESIGN 4. Lamport, "Paxos Made Simple", 2001, for one decision; Lamport, Malkhi, Zhou, "Reconfiguring a State Machine", 2010, for
lines of configurations.
"""
