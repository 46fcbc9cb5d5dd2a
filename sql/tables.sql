-- tables.sql: where a trade is between its INSERT and its end.
--
-- A trade is in exactly one of queue, deferred, dlq, or in none of them once its
-- row says SETTLED; unapplied holds outcomes that wait to be written to the
-- trade row.  The columns from enqueued_at to fingerprint are the facts of a
-- trade; they are the same in queue, deferred and dlq, and travel together.
-- src/queue/facts.h lists them for C.

-- The script runs as a superuser: names that are not qualified are the server's,
-- and nobody else may put anything beside ours, now or later.
SET LOCAL search_path TO pg_catalog, pg_temp;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'settlement' AND n.nspowner <> current_user::regrole) THEN
        RAISE EXCEPTION 'schema "settlement" exists and belongs to somebody else'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Its owner could change what the extension does. Rename or drop it; CREATE EXTENSION makes its own.';
    ELSIF EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass
                  AND d.refobjid = 'settlement'::regnamespace AND d.classid <> 'pg_extension'::regclass) THEN
        RAISE EXCEPTION 'schema "settlement" exists and is not empty'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Move or drop what is in it.';
    END IF;
END $$;

CREATE SEQUENCE settlement.attached_id_seq AS integer;

CREATE TABLE settlement.attached (
    attached_id  integer PRIMARY KEY DEFAULT nextval('settlement.attached_id_seq'),
    relid        regclass NOT NULL UNIQUE,
    source       text NOT NULL UNIQUE CHECK (source <> ''),
    columns      jsonb NOT NULL,
    key_columns  name[] NOT NULL,
    attached_at  timestamptz NOT NULL DEFAULT now(),
    attached_by  name NOT NULL DEFAULT current_user,
    detached_at  timestamptz
) USING heap;
COMMENT ON TABLE settlement.attached IS 'Trade tables whose new rows are settled.';
COMMENT ON COLUMN settlement.attached.source IS 'Part of each idempotency key: nodes and re-created tables that hold the same trades must agree on it.';
COMMENT ON COLUMN settlement.attached.columns IS 'Role of a column (trade_id, price, status, ...) to its name in the trade table.';
COMMENT ON COLUMN settlement.attached.key_columns IS 'Primary key of the trade table, in key order.';

COMMENT ON COLUMN settlement.attached.detached_at IS 'When detach() took the trigger away; the row stays while trades refer to it, for their keys and outcomes.';

-- One id per queue row.  An id is drawn only by a transaction that owns an xid
-- already, and never from a cache (CACHE 1): the claim relies on both.
CREATE SEQUENCE settlement.queue_id_seq CACHE 1;

CREATE FUNCTION settlement.next_queue_id() RETURNS bigint
    AS 'MODULE_PATHNAME', 'settlement_next_queue_id'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement.next_queue_id() IS 'The id of a new queue row; assigns the transaction its xid first and announces the row to the workers at commit.';

CREATE TABLE settlement.queue (
    id              bigint PRIMARY KEY DEFAULT settlement.next_queue_id(),
    enqueued_at     timestamptz NOT NULL DEFAULT now(),
    attached_id     integer NOT NULL,
    leaf            regclass NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    generation      smallint NOT NULL DEFAULT 0,
    charged         smallint NOT NULL DEFAULT 0,
    crashes         smallint NOT NULL DEFAULT 0,
    format          smallint NOT NULL DEFAULT 0,
    maybe_executed  boolean NOT NULL DEFAULT false,
    lookup_first    boolean NOT NULL DEFAULT false,
    trade_tid       tid,
    trade_id        text NOT NULL,
    row_key         text[],
    symbol          text NOT NULL,
    buyer_id        text NOT NULL,
    seller_id       text NOT NULL,
    buyer_order_id  text NOT NULL,
    seller_order_id text NOT NULL,
    price           numeric NOT NULL,
    quantity        numeric NOT NULL,
    quote_amount    numeric NOT NULL,
    buyer_fee       numeric NOT NULL,
    seller_fee      numeric NOT NULL,
    trace_id        text,
    first_sent_at   timestamptz,
    pending_ms      bigint,
    fingerprint     bytea
) USING heap WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
COMMENT ON TABLE settlement.queue IS 'Trades that are ready or in flight.  A row is written once and deleted once, never updated.';
COMMENT ON COLUMN settlement.queue.leaf IS 'The table or partition that held the trade row when it was enqueued.';
COMMENT ON COLUMN settlement.queue.attempts IS 'Requests sent for this trade, of all generations.';
COMMENT ON COLUMN settlement.queue.generation IS 'Part of the idempotency key; raised only by a redrive after a final rejection.';
COMMENT ON COLUMN settlement.queue.charged IS 'Attempts that count towards settlement.max_attempts.';
COMMENT ON COLUMN settlement.queue.crashes IS 'How often a worker crashed while it handled the bytes of this trade.';
COMMENT ON COLUMN settlement.queue.format IS 'Version of the request format this key was first sent with; 0 = not sent yet.';
COMMENT ON COLUMN settlement.queue.maybe_executed IS 'An attempt of this key may have moved money.';
COMMENT ON COLUMN settlement.queue.lookup_first IS 'Ask the wallet what it knows of the key before sending.';
COMMENT ON COLUMN settlement.queue.trade_tid IS 'Where the trade row was when it was enqueued: a hint, checked against its key.';
COMMENT ON COLUMN settlement.queue.row_key IS 'Primary key of the trade row in the order of attached.key_columns; NULL when it is the trade id alone.';
COMMENT ON COLUMN settlement.queue.quote_amount IS 'price x quantity, exact, computed once at enqueue.';
COMMENT ON COLUMN settlement.queue.trace_id IS 'W3C trace id, 32 hex digits, when the trade row has one (role trace_id of attach()).  NULL: one is made from the trade''s first key; settlement.explain() shows it.';
COMMENT ON COLUMN settlement.queue.first_sent_at IS 'When this key may first have reached the wallet; the idempotency window counts from here.  -infinity: the clock was set back since, the wallet was to be asked about a trade whose row was gone, or the trade was taken up by enqueue_pending() and nobody knows; the window counts as passed.';
COMMENT ON COLUMN settlement.queue.pending_ms IS 'How long the wallet has answered "not finished yet" while it answered others.';
COMMENT ON COLUMN settlement.queue.fingerprint IS 'SHA-256 of the request body first sent under this key.';

-- Which worker has which trades in flight: one row per turn of a worker.
CREATE TABLE settlement.claims (
    boot        bigint NOT NULL,
    token       bigint NOT NULL,
    slot        integer NOT NULL,
    claimed_at  timestamptz NOT NULL,
    format      smallint NOT NULL,
    ids         bigint[] NOT NULL,
    PRIMARY KEY (boot, token)
) USING heap WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
COMMENT ON TABLE settlement.claims IS 'Queue rows that a worker has claimed, committed before their requests are sent.';
COMMENT ON COLUMN settlement.claims.format IS 'Version of the request format that new keys of the claim are sent with.';
COMMENT ON COLUMN settlement.claims.boot IS 'Random number of the server start that the claim belongs to.';

CREATE SEQUENCE settlement.deferred_id_seq;

CREATE TABLE settlement.deferred (
    id              bigint PRIMARY KEY DEFAULT nextval('settlement.deferred_id_seq'),
    retry_at        timestamptz NOT NULL,
    reason          text NOT NULL CHECK (reason IN ('retry', 'pending', 'recovered', 'paused', 'needs_lookup')),
    chargeable      boolean NOT NULL DEFAULT false,
    last_sent_at    timestamptz,
    last_class      text,
    last_code       text,
    last_status     integer,
    last_message    text,
    enqueued_at     timestamptz NOT NULL,
    attached_id     integer NOT NULL,
    leaf            regclass NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    generation      smallint NOT NULL DEFAULT 0,
    charged         smallint NOT NULL DEFAULT 0,
    crashes         smallint NOT NULL DEFAULT 0,
    format          smallint NOT NULL DEFAULT 0,
    maybe_executed  boolean NOT NULL DEFAULT false,
    lookup_first    boolean NOT NULL DEFAULT false,
    trade_tid       tid,
    trade_id        text NOT NULL,
    row_key         text[],
    symbol          text NOT NULL,
    buyer_id        text NOT NULL,
    seller_id       text NOT NULL,
    buyer_order_id  text NOT NULL,
    seller_order_id text NOT NULL,
    price           numeric NOT NULL,
    quantity        numeric NOT NULL,
    quote_amount    numeric NOT NULL,
    buyer_fee       numeric NOT NULL,
    seller_fee      numeric NOT NULL,
    trace_id        text,
    first_sent_at   timestamptz,
    pending_ms      bigint,
    fingerprint     bytea
) USING heap WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
CREATE INDEX deferred_retry_at_idx ON settlement.deferred (retry_at) WHERE reason <> 'paused';
CREATE INDEX deferred_trade_id_idx ON settlement.deferred (trade_id);
CREATE INDEX deferred_paused_idx ON settlement.deferred (symbol, id) WHERE reason = 'paused';
CREATE INDEX deferred_unknown_idx ON settlement.deferred (symbol, reason) INCLUDE (quote_amount, enqueued_at) WHERE maybe_executed;
COMMENT ON TABLE settlement.deferred IS 'Trades that wait: for the next attempt, for a pause to end, or for a look-up at the wallet.';
COMMENT ON COLUMN settlement.deferred.chargeable IS 'The last attempt counts towards settlement.max_attempts if the wallet has answered another trade since.';

CREATE SEQUENCE settlement.dlq_id_seq;

CREATE TABLE settlement.dlq (
    id              bigint PRIMARY KEY DEFAULT nextval('settlement.dlq_id_seq'),
    status          text NOT NULL CHECK (status IN ('FAILED', 'UNKNOWN')),
    class           text NOT NULL,
    code            text,
    http_status     integer,
    message         text,
    died_at         timestamptz NOT NULL DEFAULT now(),
    final_rejection boolean NOT NULL DEFAULT false,
    enqueued_at     timestamptz NOT NULL,
    attached_id     integer NOT NULL,
    leaf            regclass NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    generation      smallint NOT NULL DEFAULT 0,
    charged         smallint NOT NULL DEFAULT 0,
    crashes         smallint NOT NULL DEFAULT 0,
    format          smallint NOT NULL DEFAULT 0,
    maybe_executed  boolean NOT NULL DEFAULT false,
    lookup_first    boolean NOT NULL DEFAULT false,
    trade_tid       tid,
    trade_id        text,
    row_key         text[],
    symbol          text,
    buyer_id        text,
    seller_id       text,
    buyer_order_id  text,
    seller_order_id text,
    price           numeric,
    quantity        numeric,
    quote_amount    numeric,
    buyer_fee       numeric,
    seller_fee      numeric,
    trace_id        text,
    first_sent_at   timestamptz,
    pending_ms      bigint,
    fingerprint     bytea,
    safe_to_discard boolean GENERATED ALWAYS AS (status = 'FAILED' AND NOT maybe_executed AND NOT lookup_first) STORED
) USING heap;
CREATE INDEX dlq_trade_id_idx ON settlement.dlq (trade_id);
CREATE INDEX dlq_status_idx ON settlement.dlq (status, died_at);
-- The oldest of what is unknown, per symbol, among however many others.
CREATE INDEX dlq_unknown_idx ON settlement.dlq (symbol, enqueued_at) WHERE status = 'UNKNOWN';
COMMENT ON TABLE settlement.dlq IS 'Dead letter queue: trades that will not be tried again by themselves, with the reason.';
COMMENT ON COLUMN settlement.dlq.status IS 'FAILED: the wallet certainly did not move money.  UNKNOWN: it may have.';
COMMENT ON COLUMN settlement.dlq.safe_to_discard IS 'The wallet certainly did not move money, and nobody has to ask it: dlq_purge() takes no other.';
COMMENT ON COLUMN settlement.dlq.final_rejection IS 'The wallet would repeat this rejection for ever under the same key; a redrive takes a new one.';

CREATE SEQUENCE settlement.unapplied_id_seq;

CREATE TABLE settlement.unapplied (
    id              bigint PRIMARY KEY DEFAULT nextval('settlement.unapplied_id_seq'),
    next_apply_at   timestamptz NOT NULL DEFAULT now(),
    failures        integer NOT NULL DEFAULT 0,
    last_failure    text,
    last_failed_at  timestamptz,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    attached_id     integer NOT NULL,
    leaf            regclass NOT NULL,
    trade_tid       tid,
    trade_id        text,
    row_key         text[],
    status          text NOT NULL CHECK (status IN ('PENDING', 'SETTLED', 'FAILED', 'UNKNOWN', 'REVERSED')),
    settlement_id   text,
    settled_at      timestamptz,
    attempts        integer NOT NULL DEFAULT 0,
    error           text,
    content         text[],
    trace_id        text
) USING heap WITH (autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
CREATE INDEX unapplied_next_apply_at_idx ON settlement.unapplied (next_apply_at);
CREATE INDEX unapplied_trade_id_idx ON settlement.unapplied (trade_id);
COMMENT ON TABLE settlement.unapplied IS 'Outcomes that are known and recorded, but not yet written to the trade row.';
COMMENT ON COLUMN settlement.unapplied.content IS 'What was sent, from symbol to seller_fee: compared with the trade row when the outcome is written.';

CREATE TABLE settlement.attempts (
    at           timestamptz NOT NULL,
    attached_id  integer NOT NULL,
    trade_id     text NOT NULL,
    generation   smallint NOT NULL,
    attempt      integer NOT NULL,
    verb         text NOT NULL,
    outcome      text NOT NULL,
    class        text,
    phase        text NOT NULL,
    http_status  integer,
    code         text,
    message      text,
    duration     interval NOT NULL,
    slot         integer NOT NULL
) USING heap WITH (vacuum_truncate = false);
CREATE INDEX attempts_trade_id_idx ON settlement.attempts (trade_id, at);
CREATE INDEX attempts_at_idx ON settlement.attempts (at);
COMMENT ON TABLE settlement.attempts IS 'Requests to the wallet: failed ones always, successful ones with settlement.attempt_history = all.';
COMMENT ON COLUMN settlement.attempts.phase IS 'How far it came: prepared, connecting, sent, replying, replied.';

CREATE TABLE settlement.pauses (
    symbol  text PRIMARY KEY,
    reason  text NOT NULL,
    until   timestamptz,
    by      name NOT NULL DEFAULT session_user,
    at      timestamptz NOT NULL DEFAULT now()
) USING heap;
COMMENT ON TABLE settlement.pauses IS 'What is paused; the symbol * stands for everything.';

-- What redrive_where() and resolve_where() leave to the workers (redrives.sql).
CREATE SEQUENCE settlement.redrives_id_seq;

CREATE TABLE settlement.redrives (
    id          bigint PRIMARY KEY DEFAULT nextval('settlement.redrives_id_seq'),
    state       text NOT NULL CHECK (state IN ('canary', 'running', 'done', 'stopped', 'cancelled')),
    act         text NOT NULL,
    filter      jsonb NOT NULL,
    look_up     boolean NOT NULL,
    may_repay   boolean NOT NULL,
    max         bigint,
    per_second  numeric,
    canary      integer,
    reason      text NOT NULL,
    by          name NOT NULL DEFAULT session_user,
    at          timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    why         text,
    matching    bigint NOT NULL,
    redriven    bigint NOT NULL DEFAULT 0,
    skipped     bigint NOT NULL DEFAULT 0,
    note        text,
    canary_trades jsonb NOT NULL DEFAULT '[]',
    canary_settled integer NOT NULL DEFAULT 0,
    last_id     bigint NOT NULL DEFAULT 0,
    upto_id     bigint NOT NULL,
    worked_at   timestamptz NOT NULL DEFAULT now(),
    wait        interval NOT NULL DEFAULT '0',
    crashes     smallint NOT NULL DEFAULT 0
) USING heap WITH (vacuum_truncate = false);
CREATE INDEX redrives_open_idx ON settlement.redrives (id) WHERE state IN ('canary', 'running');
COMMENT ON TABLE settlement.redrives IS 'Redrives, and look-ups of many, that the workers do step by step: under way, and past ones.';
COMMENT ON COLUMN settlement.redrives.id IS 'Order of the acts; what redrive_cancel() takes.';
COMMENT ON COLUMN settlement.redrives.state IS 'canary: the first trades have to settle; running; done; stopped: see why; cancelled.';
COMMENT ON COLUMN settlement.redrives.act IS 'redrive_where or resolve_where.';
COMMENT ON COLUMN settlement.redrives.filter IS 'What it takes; ages count from at.';
COMMENT ON COLUMN settlement.redrives.look_up IS 'The wallet is asked before anything is sent.';
COMMENT ON COLUMN settlement.redrives.may_repay IS 'Who began it had the right to send again what may have been paid.';
COMMENT ON COLUMN settlement.redrives.max IS 'At most so many; NULL: all.';
COMMENT ON COLUMN settlement.redrives.per_second IS 'So many a second; NULL: as fast as the workers come to it.';
COMMENT ON COLUMN settlement.redrives.canary IS 'So many first; the rest only once they are settled.  NULL: no canary.';
COMMENT ON COLUMN settlement.redrives.reason IS 'As given.';
COMMENT ON COLUMN settlement.redrives.by IS 'Who began it.';
COMMENT ON COLUMN settlement.redrives.at IS 'When.';
COMMENT ON COLUMN settlement.redrives.finished_at IS 'When it ended.';
COMMENT ON COLUMN settlement.redrives.why IS 'Why it was stopped or cancelled.';
COMMENT ON COLUMN settlement.redrives.matching IS 'Dead letters that the filter named when it began.';
COMMENT ON COLUMN settlement.redrives.redriven IS 'Trades that went on.';
COMMENT ON COLUMN settlement.redrives.skipped IS 'Trades that did not; see note.';
COMMENT ON COLUMN settlement.redrives.note IS 'Why trades were skipped, the last time.';
COMMENT ON COLUMN settlement.redrives.canary_trades IS 'Trades of the canary that are not known to be settled yet.';
COMMENT ON COLUMN settlement.redrives.canary_settled IS 'How many of the canary are settled.';
COMMENT ON COLUMN settlement.redrives.last_id IS 'Dead letters up to this id have been looked at.';
COMMENT ON COLUMN settlement.redrives.upto_id IS 'Later ones are not taken: a trade that dies again is not redriven twice.';
COMMENT ON COLUMN settlement.redrives.worked_at IS 'When a worker worked on it last.';
COMMENT ON COLUMN settlement.redrives.wait IS 'From then to the next time.';
COMMENT ON COLUMN settlement.redrives.crashes IS 'Crashes of the server in the midst of its steps, in a row.';

-- Redrives that happen by themselves (policies.sql).
CREATE TABLE settlement.policies (
    name       text PRIMARY KEY CHECK (name <> ''),
    filter     jsonb NOT NULL,
    after      interval NOT NULL CHECK (after >= '0'),
    at_most    integer NOT NULL CHECK (at_most > 0),
    on_breaker_close boolean NOT NULL,
    look_up    boolean NOT NULL,
    may_repay  boolean NOT NULL,
    reason     text NOT NULL,
    by         name NOT NULL DEFAULT session_user,
    at         timestamptz NOT NULL DEFAULT now(),
    last_id    bigint NOT NULL DEFAULT 0,
    breaker_open boolean NOT NULL DEFAULT false,
    breaker_closed_at timestamptz,
    redriven   bigint NOT NULL DEFAULT 0,
    redriven_at timestamptz,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    note       text,
    crashes    smallint NOT NULL DEFAULT 0
) USING heap WITH (vacuum_truncate = false);
COMMENT ON TABLE settlement.policies IS 'Which dead letters are redriven by themselves; the view redrive_policies shows them.';
COMMENT ON COLUMN settlement.policies.name IS 'What redrive_policy_drop() takes.';
COMMENT ON COLUMN settlement.policies.filter IS 'What it takes.  UNKNOWN trades only when it says status UNKNOWN.';
COMMENT ON COLUMN settlement.policies.after IS 'How long after its death a trade is redriven.';
COMMENT ON COLUMN settlement.policies.at_most IS 'How often it redrives one trade.';
COMMENT ON COLUMN settlement.policies.on_breaker_close IS 'It takes what had died when the circuit breaker closed, and nothing before.';
COMMENT ON COLUMN settlement.policies.look_up IS 'The wallet is asked before anything is sent.';
COMMENT ON COLUMN settlement.policies.may_repay IS 'Who set it had the right to send again what may have been paid.';
COMMENT ON COLUMN settlement.policies.reason IS 'As given.';
COMMENT ON COLUMN settlement.policies.by IS 'Who set it.';
COMMENT ON COLUMN settlement.policies.at IS 'When.';
COMMENT ON COLUMN settlement.policies.last_id IS 'Dead letters up to this id have been looked at in this round.';
COMMENT ON COLUMN settlement.policies.breaker_open IS 'The breaker was not closed when it was looked at last.';
COMMENT ON COLUMN settlement.policies.breaker_closed_at IS 'When the breaker closed last.';
COMMENT ON COLUMN settlement.policies.redriven IS 'Redrives in all.';
COMMENT ON COLUMN settlement.policies.redriven_at IS 'The last one.';
COMMENT ON COLUMN settlement.policies.not_before IS 'After a step that failed: when it goes on.';
COMMENT ON COLUMN settlement.policies.note IS 'Why that step failed.';
COMMENT ON COLUMN settlement.policies.crashes IS 'Crashes of the server in the midst of steps of policies, since its last one.';

CREATE TABLE settlement.policy_tries (
    policy      text NOT NULL REFERENCES settlement.policies ON DELETE CASCADE,
    attached_id integer NOT NULL,
    trade_id    text NOT NULL,
    times       integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT '-infinity',
    note        text,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (policy, attached_id, trade_id)
) USING heap WITH (vacuum_truncate = false);
CREATE INDEX policy_tries_at_idx ON settlement.policy_tries (at);
COMMENT ON TABLE settlement.policy_tries IS 'How often a policy has redriven a trade; kept for settlement.attempt_retention after the last time.';
COMMENT ON COLUMN settlement.policy_tries.policy IS 'Name of the policy.';
COMMENT ON COLUMN settlement.policy_tries.times IS 'Redrives.';
COMMENT ON COLUMN settlement.policy_tries.not_before IS 'After one that failed: when it may be tried again.';
COMMENT ON COLUMN settlement.policy_tries.note IS 'Why it failed.';
COMMENT ON COLUMN settlement.policy_tries.at IS 'The last time.';

CREATE SEQUENCE settlement.audit_log_id_seq;

CREATE TABLE settlement.audit_log (
    id        bigint PRIMARY KEY DEFAULT nextval('settlement.audit_log_id_seq'),
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    role      name NOT NULL DEFAULT session_user,
    act       text NOT NULL,
    attached_id integer,
    trade_id  text,
    details   jsonb NOT NULL DEFAULT '{}',
    count     bigint,
    reason    text
) USING heap;
CREATE INDEX audit_log_trade_id_idx ON settlement.audit_log (trade_id) WHERE trade_id IS NOT NULL;
CREATE INDEX audit_log_at_idx ON settlement.audit_log (at) WHERE trade_id IS NULL;
COMMENT ON TABLE settlement.audit_log IS 'Every act of an operator.';

CREATE FUNCTION settlement._writer() RETURNS xid
    AS 'MODULE_PATHNAME', 'settlement_writer'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._writer() IS 'Internal: the xmin of a row that is written now.';

CREATE TABLE settlement.identity (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    system_identifier bigint NOT NULL,
    database_oid      oid NOT NULL,
    place             text NOT NULL,
    directory         text NOT NULL,
    timeline          integer NOT NULL,
    epoch             bigint NOT NULL DEFAULT 1,
    adopted_at        timestamptz NOT NULL DEFAULT now(),
    adopted_by        name NOT NULL DEFAULT session_user,
    reason            text NOT NULL,
    written_by        xid NOT NULL DEFAULT settlement._writer(),
    lineage           uuid NOT NULL DEFAULT gen_random_uuid(),
    original_until    timestamptz NOT NULL DEFAULT '-infinity'
) USING heap;
COMMENT ON TABLE settlement.identity IS 'The one database that may send, so that a copy of it sends nothing.';
COMMENT ON COLUMN settlement.identity.place IS 'Who may send: a hash of settlement.site_file, or of the machine.';
COMMENT ON COLUMN settlement.identity.directory IS 'A hash of the path and the inode of the data directory.';
COMMENT ON COLUMN settlement.identity.timeline IS 'A promotion, and a recovery to a point in time, begin a new one.';
COMMENT ON COLUMN settlement.identity.epoch IS 'Goes with each request; a wallet refuses a lower one than it has seen.  1 at first; from the first promotion or adoption on the last six digits are drawn at random, so that two copies do not have the same one.';
COMMENT ON COLUMN settlement.identity.lineage IS 'This database and all copies of it, which have it in common: goes with each request, and epochs count within it, so that the wallet may serve other databases too.';
COMMENT ON COLUMN settlement.identity.original_until IS 'When adopt() was called last: a key that may have been sent before may have been rejected and followed by others where this database came from.';
COMMENT ON COLUMN settlement.identity.written_by IS 'The row''s xmin when it was written; a row restored from a dump or replicated has another.';

CREATE TABLE settlement.discrepancies (
    at           timestamptz NOT NULL DEFAULT now(),
    attached_id  integer NOT NULL,
    trade_id     text NOT NULL,
    kind         text NOT NULL,
    details      jsonb NOT NULL DEFAULT '{}'
) USING heap;
-- A publication FOR ALL TABLES would forbid to delete from tables without a key.
ALTER TABLE settlement.attempts REPLICA IDENTITY FULL;
ALTER TABLE settlement.discrepancies REPLICA IDENTITY FULL;
COMMENT ON TABLE settlement.discrepancies IS 'Facts that contradict each other and need a person.';
COMMENT ON COLUMN settlement.discrepancies.kind IS 'trade_row_gone: an outcome found no row.  trade_changed: the row was changed after it was enqueued; what was enqueued was paid.  status_changed: the row said SETTLED or REVERSED, or another settlement id, when its outcome came; it was left so.  settled_after_resolve: the wallet settled what an operator had resolved as FAILED or purged.';

-- ---------------------------------------------------------------- columns

COMMENT ON COLUMN settlement.attached.attached_id IS 'What other tables call it.';
COMMENT ON COLUMN settlement.attached.relid IS 'The table, or the root of a partitioned one.';
COMMENT ON COLUMN settlement.attached.attached_at IS 'When attach() was called last.';
COMMENT ON COLUMN settlement.attached.attached_by IS 'Who called it.';

COMMENT ON COLUMN settlement.queue.id IS 'Order of arrival; a trade that is retried has a new one.';
COMMENT ON COLUMN settlement.queue.enqueued_at IS 'Start of the transaction that inserted the trade.';
COMMENT ON COLUMN settlement.queue.attached_id IS 'The table, in settlement.attached.';
COMMENT ON COLUMN settlement.queue.trade_id IS 'Trade id, as text.';
COMMENT ON COLUMN settlement.queue.symbol IS 'Market: base and quote currency.';
COMMENT ON COLUMN settlement.queue.buyer_id IS 'User who gets the base currency.';
COMMENT ON COLUMN settlement.queue.seller_id IS 'User who gets the quote currency.';
COMMENT ON COLUMN settlement.queue.buyer_order_id IS 'Order of the buyer, whose reservation the wallet releases.';
COMMENT ON COLUMN settlement.queue.seller_order_id IS 'Order of the seller.';
COMMENT ON COLUMN settlement.queue.price IS 'Quote currency per unit of base currency.';
COMMENT ON COLUMN settlement.queue.quantity IS 'Base amount.';
COMMENT ON COLUMN settlement.queue.buyer_fee IS 'In quote currency, on top of the quote amount.';
COMMENT ON COLUMN settlement.queue.seller_fee IS 'In quote currency, out of the quote amount.';

COMMENT ON COLUMN settlement.claims.token IS 'Number of the claim since the server start.';
COMMENT ON COLUMN settlement.claims.slot IS 'The worker, as in settlement.workers.';
COMMENT ON COLUMN settlement.claims.claimed_at IS 'When it was claimed; counts as the first send of what is sent for the first time.';
COMMENT ON COLUMN settlement.claims.ids IS 'Ids of queue.';

COMMENT ON COLUMN settlement.deferred.id IS 'Order of arrival here.';
COMMENT ON COLUMN settlement.deferred.retry_at IS 'When it is due; infinity: when its pause ends, or not by itself.';
COMMENT ON COLUMN settlement.deferred.reason IS 'retry: for the next attempt; pending: the wallet has not finished; recovered: its worker is gone; paused: its symbol is; needs_lookup: the wallet is asked before anything is sent.';
COMMENT ON COLUMN settlement.deferred.last_sent_at IS 'When the last request was sent.';
COMMENT ON COLUMN settlement.deferred.last_class IS 'Why it failed (docs/logging.md lists the classes).';
COMMENT ON COLUMN settlement.deferred.last_code IS 'The code in the wallet''s reply.';
COMMENT ON COLUMN settlement.deferred.last_status IS 'Its HTTP status.';
COMMENT ON COLUMN settlement.deferred.last_message IS 'Its message, or what went wrong.';

COMMENT ON COLUMN settlement.dlq.id IS 'Order of arrival here.';
COMMENT ON COLUMN settlement.dlq.class IS 'Why it died (docs/logging.md lists the classes).';
COMMENT ON COLUMN settlement.dlq.code IS 'The code in the wallet''s last reply.';
COMMENT ON COLUMN settlement.dlq.http_status IS 'Its HTTP status.';
COMMENT ON COLUMN settlement.dlq.message IS 'Its message, or what went wrong.';
COMMENT ON COLUMN settlement.dlq.died_at IS 'When it came here.';

COMMENT ON COLUMN settlement.unapplied.id IS 'Order of arrival; an outcome is overtaken by a later one of the same trade unless money moved.';
COMMENT ON COLUMN settlement.unapplied.next_apply_at IS 'When it is tried again.';
COMMENT ON COLUMN settlement.unapplied.failures IS 'How often it could not be written.';
COMMENT ON COLUMN settlement.unapplied.last_failure IS 'Why, the last time.';
COMMENT ON COLUMN settlement.unapplied.last_failed_at IS 'When that was.';
COMMENT ON COLUMN settlement.unapplied.recorded_at IS 'When the outcome was recorded.';
COMMENT ON COLUMN settlement.unapplied.status IS 'To be written: the settlement status.';
COMMENT ON COLUMN settlement.unapplied.settlement_id IS 'To be written: what the wallet calls it.  NULL leaves the column as it is.';
COMMENT ON COLUMN settlement.unapplied.settled_at IS 'To be written.  NULL leaves the column as it is.';
COMMENT ON COLUMN settlement.unapplied.error IS 'To be written: why it is not settled.';

COMMENT ON COLUMN settlement.attempts.at IS 'When the request was sent.';
COMMENT ON COLUMN settlement.attempts.attempt IS 'Which request of the trade, of all generations; a look-up has the number of the request before it.';
COMMENT ON COLUMN settlement.attempts.verb IS 'settle or lookup.';
COMMENT ON COLUMN settlement.attempts.outcome IS 'Of settle: settled, rejected, conflict, unknown, pending, not_executed, fenced.  Of lookup: settled, rejected, pending, unknown_key, failed.';
COMMENT ON COLUMN settlement.attempts.class IS 'Why it failed (docs/logging.md lists the classes).';
COMMENT ON COLUMN settlement.attempts.http_status IS 'Of the reply.';
COMMENT ON COLUMN settlement.attempts.code IS 'The code in the reply.';
COMMENT ON COLUMN settlement.attempts.message IS 'The message in the reply, or what went wrong; never a secret.';
COMMENT ON COLUMN settlement.attempts.duration IS 'From the submission of the request to its end.';
COMMENT ON COLUMN settlement.attempts.slot IS 'The worker, as in settlement.workers.';

COMMENT ON COLUMN settlement.pauses.symbol IS 'Market, or *.';
COMMENT ON COLUMN settlement.pauses.reason IS 'Why.';
COMMENT ON COLUMN settlement.pauses.until IS 'When it ends by itself; NULL: not.';
COMMENT ON COLUMN settlement.pauses.by IS 'Who paused it.';
COMMENT ON COLUMN settlement.pauses.at IS 'When.';

COMMENT ON COLUMN settlement.audit_log.id IS 'Order of the acts.';
COMMENT ON COLUMN settlement.audit_log.at IS 'When.';
COMMENT ON COLUMN settlement.audit_log.role IS 'Who: the session''s user, whatever role it had set.';
COMMENT ON COLUMN settlement.audit_log.act IS 'Name of the function, mostly.';
COMMENT ON COLUMN settlement.audit_log.details IS 'Arguments, and what it found.';
COMMENT ON COLUMN settlement.audit_log.count IS 'How many trades it concerned.';
COMMENT ON COLUMN settlement.audit_log.reason IS 'As given.';

COMMENT ON COLUMN settlement.identity.singleton IS 'There is one row.';
COMMENT ON COLUMN settlement.identity.system_identifier IS 'Of the cluster, as pg_control_system() says.';
COMMENT ON COLUMN settlement.identity.database_oid IS 'Of the database.';
COMMENT ON COLUMN settlement.identity.adopted_at IS 'When it was said that this is the one.';
COMMENT ON COLUMN settlement.identity.adopted_by IS 'By whom.';
COMMENT ON COLUMN settlement.identity.reason IS 'Why.';

COMMENT ON COLUMN settlement.discrepancies.at IS 'When it was found.';
COMMENT ON COLUMN settlement.discrepancies.details IS 'What contradicts what.';

-- A column that tables have in common means the same in each.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN
        SELECT a.attrelid::regclass AS rel, a.attname, col_description(q.attrelid, q.attnum) AS text
        FROM pg_attribute q JOIN pg_attribute a ON a.attname = q.attname AND a.attnum > 0 AND NOT a.attisdropped
        WHERE q.attrelid = 'settlement.queue'::regclass
          AND a.attrelid = ANY ('{settlement.deferred,settlement.dlq,settlement.unapplied,settlement.attempts,
                                  settlement.policy_tries,settlement.audit_log,settlement.discrepancies}'::regclass[])
          AND col_description(a.attrelid, a.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', col.rel, col.attname, col.text);
    END LOOP;
END $$;

-- One statement each: they all update the extension's row.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{attached,attached_id_seq,queue,queue_id_seq,claims,deferred,deferred_id_seq,
        dlq,dlq_id_seq,unapplied,unapplied_id_seq,attempts,pauses,redrives,redrives_id_seq,policies,policy_tries,
        audit_log,audit_log_id_seq,identity,discrepancies}'::text[]
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('settlement.' || name)::regclass, '');
    END LOOP;
END
$$;
