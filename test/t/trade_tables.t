#!/usr/bin/perl
# Trade tables as they are out there, and what users hang on them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => "settlement.apply_timeout = '1s'");

sub exchange_insert
{
	my ($from, $upto, $day) = @_;
	$day //= 'now()';
	$s->engine(<<SQL);
INSERT INTO "Exchange"."Trade Log" (id, "executed_at", "symbol", "buy_order_id", "sell_order_id", "buyer_id", "seller_id", price, "quantity", buyer_fee, seller_fee)
SELECT i, $day, 'BTC/USDT', i, i + 1, 'u' || i % 20, 'u' || (i + 1) % 20, 100 + i, 0.5, 0.1, 0.05 FROM generate_series($from, $upto) AS i
SQL
}

# Quoted names, partitioned by day, composite key: attach finds its way alone.
scenario exchange_table => sub {
	$s->sql(<<'SQL');
CREATE SCHEMA "Exchange" AUTHORIZATION exchange;
SET ROLE exchange;
CREATE TABLE "Exchange"."Trade Log" (
    id bigint NOT NULL, executed_at timestamptz NOT NULL, symbol text NOT NULL,
    buy_order_id bigint NOT NULL, sell_order_id bigint NOT NULL, buyer_id text NOT NULL, seller_id text NOT NULL,
    price numeric(20, 8) NOT NULL, quantity numeric(20, 8) NOT NULL,
    buyer_fee numeric(20, 8), seller_fee numeric(20, 8),
    PRIMARY KEY (id, executed_at)) PARTITION BY RANGE (executed_at);
SELECT format('CREATE TABLE "Exchange"."Trade Log %s" PARTITION OF "Exchange"."Trade Log" FOR VALUES FROM (%L) TO (%L)',
              to_char(d, 'YYYY-MM-DD'), d, d + interval '1 day')
FROM generate_series(date_trunc('day', now()) - interval '2 days', date_trunc('day', now()) + interval '2 days', interval '1 day') AS d
\gexec
GRANT USAGE ON SCHEMA "Exchange" TO engine;
GRANT INSERT ON "Exchange"."Trade Log" TO engine;
RESET ROLE;
SELECT settlement.attach('"Exchange"."Trade Log"');
SQL
	my $columns = join ', ', 'id::text AS trade_id', 'symbol', 'price', 'quantity', 'buyer_fee', 'seller_fee',
		'buyer_id AS buyer_user_id', 'seller_id AS seller_user_id', 'settlement_status', 'settlement_id', 'executed_at',
		'settlement_attempts', 'settlement_error';
	$s->witness_trades(qq{SELECT $columns FROM "Exchange"."Trade Log"});

	exchange_insert(1, 100);
	exchange_insert(101, 150, "now() - interval '1 day'");
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE settlement_status = 'SETTLED'}, 150, 'rows of all partitions settle');
	$s->at_rest;
	$s->ledgers_are_equal;
	is($s->sql(q{SELECT source FROM settlement.attached WHERE relid = '"Exchange"."Trade Log"'::regclass}),
		'"Exchange"."Trade Log"', 'the source is the qualified name');
};

scenario a_new_partition_needs_nothing => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
SELECT format('CREATE TABLE "Exchange".later PARTITION OF "Exchange"."Trade Log" FOR VALUES FROM (%L) TO (%L)', d, d + interval '1 day')
FROM (SELECT date_trunc('day', now()) + interval '3 days' AS d) AS t
\gexec
SQL
	exchange_insert(201, 220, "date_trunc('day', now()) + interval '3 days 1 hour'");
	$s->becomes(q{SELECT count(*) FROM "Exchange".later WHERE settlement_status = 'SETTLED'}, 20, 'they settle');
};

# The worker is below row level security; the owner would see no row.
scenario force_row_level_security => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
ALTER TABLE "Exchange"."Trade Log" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY insert_only ON "Exchange"."Trade Log" FOR INSERT WITH CHECK (true);
DO $$ DECLARE p regclass; BEGIN
    FOR p IN SELECT relid FROM pg_partition_tree('"Exchange"."Trade Log"') WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', p);
    END LOOP; END $$;
SQL
	is($s->sql(q{SET ROLE exchange; SELECT count(*) FROM "Exchange"."Trade Log"}), 0, 'the owner sees no row');
	exchange_insert(301, 320);
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 301 AND 320 AND settlement_status = 'SETTLED'}, 20,
		'all settle');
};

scenario deferred_constraint_trigger => sub {
	$s->sql(<<'SQL');
CREATE TABLE "Exchange".seen (id bigint, status text, by name);
ALTER TABLE "Exchange".seen OWNER TO exchange;
SET ROLE exchange;
CREATE FUNCTION "Exchange".see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO "Exchange".seen VALUES (NEW.id, NEW.settlement_status, current_user); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER see AFTER UPDATE ON "Exchange"."Trade Log" DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION "Exchange".see();
SQL
	exchange_insert(401, 420);
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 401 AND 420 AND settlement_status = 'SETTLED'}, 20,
		'all settle');
	is($s->sql(q{SELECT count(*), min(status), min(by) FROM "Exchange".seen WHERE id BETWEEN 401 AND 420}), '20|SETTLED|exchange',
		'the trigger has seen each, as the owner of the table');
};

# The wallet has answered, the database cannot write it: kept, never resent.
scenario database_update_fails_after_reply => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
CREATE FUNCTION "Exchange".refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 507 THEN RAISE EXCEPTION 'trade 507 is under investigation'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON "Exchange"."Trade Log" FOR EACH ROW EXECUTE FUNCTION "Exchange".refuse();
SQL
	my $requests = $s->requests;
	exchange_insert(501, 520);
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 501 AND 520 AND settlement_status = 'SETTLED'}, 19,
		'the others settle');
	$s->becomes(q{SELECT trade_id, status, last_failure FROM settlement.unapplied WHERE failures > 0},
		'507|SETTLED|trade 507 is under investigation', 'that one shows in unapplied');
	is($s->sql("SELECT count(*) FROM settlement.doctor() WHERE status <> 'ok' AND component ~ 'unapplied'"), 1, 'and doctor() says so');
	is($s->sql(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '507'}), 'PENDING', 'its row is as it was');
	$s->sql(q{DROP TRIGGER refuse ON "Exchange"."Trade Log"});
	$s->becomes(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '507'}, 'SETTLED', 'it settles once the cause is gone');
	is($s->requests - $requests, 20, 'without a second request');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# User code that is slow, or says no without an error.
scenario slow_and_silent_triggers => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
CREATE FUNCTION "Exchange".odd() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 553 THEN PERFORM pg_sleep(60); END IF;
    IF NEW.id = 557 THEN RETURN NULL; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER odd BEFORE UPDATE ON "Exchange"."Trade Log" FOR EACH ROW EXECUTE FUNCTION "Exchange".odd();
SQL
	my $requests = $s->requests;
	exchange_insert(551, 560);
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 551 AND 560 AND settlement_status = 'SETTLED'}, 8,
		'the others settle');
	$s->becomes(q{SELECT string_agg(trade_id, ' ' ORDER BY trade_id) FROM settlement.unapplied WHERE failures > 0}, '553 557', 'both show in unapplied');
	like($s->sql(q{SELECT last_failure FROM settlement.unapplied WHERE trade_id = '557'}), qr/trigger suppressed/, 'with the reason');
	exchange_insert(561, 570);
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 561 AND 570 AND settlement_status = 'SETTLED'}, 10,
		'new ones settle meanwhile');
	$s->sql(q{DROP TRIGGER odd ON "Exchange"."Trade Log"});
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 551 AND 560 AND settlement_status = 'SETTLED'}, 10,
		'both settle once the cause is gone', 90);
	is($s->requests - $requests, 20, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_locked_row_holds_up_nobody => sub {
	exchange_insert(601, 601);
	$s->becomes(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '601'}, 'SETTLED', 'settled');
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(602, 620);
	my $session = $s->session;
	$session->query_safe(q{BEGIN; SELECT FROM "Exchange"."Trade Log" WHERE id = 610 FOR UPDATE});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 602 AND 620 AND settlement_status = 'SETTLED'}, 18,
		'the others settle while a user holds one row');
	$s->becomes(q{SELECT trade_id, last_failure FROM settlement.unapplied}, '610|the row or its table is locked', 'that one waits');
	$session->query_safe('COMMIT');
	$session->quit;
	$s->becomes(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '610'}, 'SETTLED', 'it settles when the lock is gone');
	$s->ledgers_are_equal;
};

scenario a_locked_table_holds_up_nobody => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(701, 705);
	$s->trade('other-table');
	my $session = $s->session;
	$session->query_safe(q{BEGIN; LOCK TABLE "Exchange"."Trade Log" IN SHARE ROW EXCLUSIVE MODE});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT settlement_status FROM trades WHERE trade_id = 'other-table'}, 'SETTLED', 'trades of another table settle');
	$s->becomes(q{SELECT count(*) FROM settlement.unapplied}, 5, 'those of the locked one are recorded');
	$session->query_safe('COMMIT');
	$session->quit;
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 701 AND 705 AND settlement_status = 'SETTLED'}, 5,
		'they settle when the lock is gone');
};

# A row that moves to another partition between enqueue and outcome.
scenario a_row_that_moves => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(801, 801);
	$s->sql(q{UPDATE "Exchange"."Trade Log" SET executed_at = executed_at - interval '1 day' WHERE id = 801});
	is($s->sql(q{SELECT count(*) FROM settlement.queue WHERE trade_id = '801'}), 1, 'is queued once, by its INSERT');
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '801'}, 'SETTLED', 'settles');
	$s->at_rest;
	is($s->effects_of('801'), 1, 'one effect');
};

# What ALTER DATABASE ... SET does to every session it must not do to a worker.
scenario hostile_settings => sub {
	$s->sql(<<'SQL');
ALTER DATABASE postgres SET synchronous_commit = off;
ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
ALTER DATABASE postgres SET default_transaction_read_only = on;
ALTER DATABASE postgres SET default_transaction_deferrable = on;
ALTER DATABASE postgres SET session_replication_role = replica;
ALTER DATABASE postgres SET search_path = nonsense;
ALTER DATABASE postgres SET statement_timeout = 1;
ALTER DATABASE postgres SET lock_timeout = 1;
ALTER DATABASE postgres SET idle_in_transaction_session_timeout = 1;
ALTER DATABASE postgres SET row_security = off;
ALTER DATABASE postgres SET enable_indexscan = off;
ALTER DATABASE postgres SET DateStyle = 'German, DMY';
ALTER DATABASE postgres SET IntervalStyle = sql_standard;
ALTER DATABASE postgres SET TimeZone = 'Pacific/Kiritimati';
ALTER DATABASE postgres SET extra_float_digits = -15;
ALTER DATABASE postgres SET lc_messages = 'C';
ALTER DATABASE postgres SET standard_conforming_strings = off;
SELECT settlement.restart_worker(slot) FROM settlement.workers;
SQL
	# Not by SET: on a busy machine that takes longer than a millisecond, too.
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } qw(statement_timeout=0 lock_timeout=0 idle_in_transaction_session_timeout=0
		default_transaction_read_only=off session_replication_role=origin search_path=public);
	$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND started_at > (SELECT max(at) FROM settlement.audit_log WHERE act = 'restart_worker') - interval '1 second'", 2, 'new workers run');
	$s->sql("SELECT settlement.pause('test')");
	$s->sql(qq{INSERT INTO "Exchange"."Trade Log" (id, executed_at, symbol, buy_order_id, sell_order_id, buyer_id, seller_id, price, quantity)
		SELECT i, now(), 'BTC/USDT', i, i, 'u1', 'u2', 1, 1 FROM generate_series(851, 855) AS i});
	$s->sql(qq{UPDATE "Exchange"."Trade Log" SET symbol = symbol WHERE id BETWEEN 851 AND 855});
	$s->sql(qq{VACUUM FULL "Exchange"."Trade Log"});
	$s->sql("SELECT settlement.resume()");
	$s->becomes(qq{SELECT count(*) FROM "Exchange"."Trade Log" WHERE id BETWEEN 851 AND 855 AND settlement_status = 'SETTLED'}, 5,
		'rows are found by a key with a timestamp');
	$s->sql("SELECT put('hostile', 10); SELECT put('hostile bad', price => -1)");
	$s->becomes("SELECT string_agg(settlement_status || ' ' || n, ', ' ORDER BY 1) FROM (SELECT settlement_status, count(*) AS n FROM trades WHERE trade_id LIKE 'hostile%' GROUP BY 1) AS c",
		'FAILED 1, SETTLED 10', 'trades settle, and fail, as ever');
	$s->sql("ALTER DATABASE postgres RESET ALL");
	$s->sql("SELECT settlement.restart_worker(slot) FROM settlement.workers");
	$s->sql("DELETE FROM settlement.dlq");
};

scenario a_row_that_is_gone => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(901, 901);
	$s->sql(q{DELETE FROM "Exchange"."Trade Log" WHERE id = 901});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT kind FROM settlement.discrepancies WHERE trade_id = '901'}, 'trade_row_gone',
		'what the wallet did to it is a discrepancy');
};

# Between the INSERT and the outcome anything may happen to the row.
scenario rows_that_are_elsewhere => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(911, 940);
	$s->sql(q{DELETE FROM "Exchange"."Trade Log" WHERE id < 400});
	$s->sql(q{UPDATE "Exchange"."Trade Log" SET symbol = symbol WHERE id = 911});
	$s->sql(q{VACUUM FULL "Exchange"."Trade Log"});
	$s->sql(q{ALTER TABLE "Exchange"."Trade Log" ADD COLUMN note text DEFAULT 'x'; ALTER TABLE "Exchange"."Trade Log" ALTER COLUMN note TYPE varchar(99)});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 911 AND 940 AND settlement_status = 'SETTLED'}, 30,
		'rows that were updated, moved and rewritten are found');
};

scenario a_table_that_is_renamed => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(951, 955);
	$s->sql(q{ALTER TABLE "Exchange"."Trade Log" RENAME TO "Log of Trades"});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT count(*) FROM witness.trades WHERE trade_id::bigint BETWEEN 951 AND 955 AND settlement_status = 'SETTLED'}, 5,
		'is the same table');
	$s->sql(q{ALTER TABLE "Exchange"."Log of Trades" RENAME TO "Trade Log"});
};

scenario a_partition_that_is_detached => sub {
	$s->sql("SELECT settlement.pause('test')");
	exchange_insert(961, 965, "date_trunc('day', now()) + interval '3 days 2 hours'");
	$s->sql(q{ALTER TABLE "Exchange"."Trade Log" DETACH PARTITION "Exchange".later});
	$s->sql('SELECT settlement.resume()');
	$s->becomes(q{SELECT count(*) FROM "Exchange".later WHERE id BETWEEN 961 AND 965 AND settlement_status = 'SETTLED'}, 5, 'its rows are written');
};

scenario a_table_that_is_dropped => sub {
	$s->sql('SET ROLE exchange; CREATE TABLE public.brief (LIKE trades INCLUDING DEFAULTS INCLUDING INDEXES)');
	$s->attach('public.brief');
	$s->sql("SELECT settlement.pause('test')");
	$s->sql(q{INSERT INTO brief (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
		SELECT 'brief-' || i, 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1 FROM generate_series(1, 3) AS i});
	$s->sql('DROP TABLE brief');
	$s->trade('survivor');
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'survivor'", 'SETTLED', 'trades of other tables settle');
	$s->becomes("SELECT count(*) FROM settlement.discrepancies WHERE trade_id LIKE 'brief-%' AND kind = 'trade_row_gone'", 3,
		'what the wallet did to its trades are discrepancies');
};

scenario an_outcome_column_that_is_dropped => sub {
	$s->sql('ALTER TABLE trades DROP COLUMN settlement_error, DROP COLUMN settled_at');
	$s->trade('fewer columns');
	$s->trade('fewer columns, dead', price => '-1');
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'fewer columns'", 'SETTLED', 'what is left is written');
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'fewer columns, dead'", 'FAILED', 'also of the dead');
	$s->sql('ALTER TABLE trades ADD COLUMN settlement_error text, ADD COLUMN settled_at timestamptz');
	$s->sql("DELETE FROM settlement.dlq WHERE trade_id = 'fewer columns, dead'");
};

# The engine's INSERT does not fail because somebody renamed a column.
scenario a_column_that_is_renamed => sub {
	$s->sql('ALTER TABLE trades RENAME COLUMN buyer_fee TO fee_of_buyer');
	$s->engine(q{INSERT INTO trades (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity, fee_of_buyer)
		VALUES ('renamed', 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1, 1)});
	$s->dead_letter_is('renamed', 'FAILED invalid_trade - 0', 'its trade is dead-lettered');
	$s->sql('ALTER TABLE trades RENAME COLUMN fee_of_buyer TO buyer_fee');
	$s->sql("SELECT settlement.redrive('renamed', 'named as before')");
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'renamed'", 'SETTLED', 'and settles when redriven, with its fee');
	my %booked = map { ("$_->{account} $_->{currency}" => $_->{amount}) } $s->wallet->ledger('?trade_id=renamed');
	is($booked{'u1 USDT'}, '-11', 'fee included');
};

scenario detach => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trades('queued', 5);
	is($s->sql("SELECT settlement.detach('trades')"), 5, 'says how many are not finished');
	$s->trades('not queued', 5);
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'queued-%' AND settlement_status = 'SETTLED'", 5, 'these settle all the same');
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'not queued%' AND settlement_status = 'PENDING'"), 5, 'new ones are not queued');
	$s->attach('trades');
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)"), 5, 'attached again, they are taken up when asked for');
	$s->becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'not queued%' AND settlement_status = 'SETTLED'", 5, 'and settle');
	$s->at_rest;
};

scenario other_databases_and_users_see_no_workers_in_their_way => sub {
	$s->sql('CREATE DATABASE other');
	$s->sql('CREATE DATABASE copy TEMPLATE postgres');
	$s->sql('ALTER DATABASE copy RENAME TO copy2');
	$s->sql('DROP DATABASE copy2');
	$s->sql('DROP DATABASE other');
	exchange_insert(1001, 1001);
	$s->becomes(q{SELECT settlement_status FROM witness.trades WHERE trade_id = '1001'}, 'SETTLED', 'after that trades settle again');
};

done_testing();
