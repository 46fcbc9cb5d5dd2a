#!/usr/bin/perl
# The views while things happen: phases of what is in flight, sums that workers
# keep, progress of long acts, and a probe of the wallet that never hangs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Hold;
use Test::More;
use Time::HiRes qw(time);

my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.request_timeout = '20s'
settlement.poll_interval = '200ms'
CONF
my $hold = Hold->new($s);

scenario phases_of_what_is_in_flight => sub {
	my $phase = "SELECT phase, waits_for FROM settlement.in_flight WHERE trade_id = 'phase'";
	$s->faults({ match => { trade_id => 'phase' }, action => 'pass', delay_ms => 1500 });
	$hold->at('claims');
	$s->trade('phase');
	$s->becomes($phase, 'waiting|wallet', 'the wallet is waited for');
	$hold->reached('claims');
	is($s->sql($phase), 'answered|', 'answered, not recorded: the worker does something else than wait for disk, lock or standby');
	like($s->sql("SELECT settlement.explain('phase')"), qr/the wallet has answered, and the answer is being recorded/, 'explain() says so');
	$hold->release('claims');
	$s->status_is('phase', 'SETTLED');
	$s->faults;

	my $locker = $s->session;
	$locker->query_safe('BEGIN; LOCK TABLE settlement.dlq IN SHARE MODE');
	$s->trade('kept-waiting', buyer => 'nobody');
	$s->becomes("SELECT DISTINCT phase, waits_for FROM settlement.in_flight WHERE trade_id = 'kept-waiting'", 'answered|lock', 'the worker waits for a lock');
	is($s->sql('SELECT waits_for FROM settlement.workers'), 'lock', 'workers says so too');
	$locker->query_safe('COMMIT');
	$locker->quit;
	$s->dead_letter_is('kept-waiting', 'FAILED user_not_found USER_NOT_FOUND 1');
};

scenario workers_fold_the_tally => sub {
	$s->engine(join '', map { "SELECT public.put('folded-$_', symbol => 'NOSEPARATOR');" } 1 .. 400);
	$s->becomes('SELECT count(*) < 150 FROM settlement.dlq_tally', 't', 'its rows become few');
	$s->becomes("SELECT (SELECT sum(trades) FROM settlement.dlq_summary) - count(*) FROM settlement.dlq", 0, 'their sum stays');
	is($s->sql("SELECT trades FROM settlement.dlq_summary WHERE class = 'invalid_trade'"), 400, 'of each kind');
	$s->sql("SELECT * FROM settlement.dlq_purge(class => 'invalid_trade', dry_run => false, reason => 'test')");
	is($s->sql("SELECT count(*) FROM settlement.dlq_summary WHERE class = 'invalid_trade'"), 0, 'purged, they are gone from it');
};

scenario a_long_act_shows_its_progress => sub {
	$s->sql("SELECT settlement.pause('keep them')");
	$s->sql('SET session_replication_role = replica; SELECT public.put(\'missed\', 5000)');
	$s->sql(<<'SQL');
CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.005);
    RETURN NEW;
END $$;
CREATE TRIGGER linger BEFORE INSERT ON settlement.audit_log FOR EACH ROW EXECUTE FUNCTION public.linger();
INSERT INTO settlement.dlq (status, class, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
    seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'FAILED', 'queue_full', now(), a.attached_id, a.relid, t.trade_id, t.symbol, t.buyer_user_id, t.seller_user_id, t.buy_order_id,
    t.sell_order_id, t.price, t.quantity, t.price * t.quantity, t.buyer_fee, t.seller_fee
FROM settlement.attached a, public.trades t WHERE t.trade_id LIKE 'missed-%' AND t.trade_id::text <= 'missed-5';
SQL
	my $n = $s->sql("SELECT count(*) FROM settlement.dlq WHERE class = 'queue_full'");
	my $operator = $s->session;
	my $pid = $operator->query_safe('SELECT pg_backend_pid()');
	$operator->query_until(qr/begun/, "\\echo begun\nSELECT * FROM settlement.redrive_where(class => 'queue_full', dry_run => false, reason => 'room again');\n");
	$s->becomes("SELECT pid, act, target, total, done > 0, done < total, remaining IS NOT NULL FROM settlement.progress WHERE done > 0",
		"$pid|redrive|room again|$n|t|t|t", 'a redrive shows how far it is, before it commits');
	$s->sql("SELECT pg_cancel_backend($pid)");
	$s->becomes('SELECT count(*) FROM settlement.progress', 0, 'cancelled, it is gone');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE class = 'queue_full'"), $n, '... and has done nothing');
	eval { $operator->quit };
	$s->sql('DROP TRIGGER linger ON settlement.audit_log');
	$s->sql("SELECT * FROM settlement.redrive_where(class => 'queue_full', dry_run => false, reason => 'room again')");
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE class = 'queue_full'"), 0, 'done again, undisturbed');

	my $drainer = $s->session;
	$drainer->query_until(qr/begun/, "\\echo begun\nCALL settlement.drain('1 min');\n");
	$s->becomes("SELECT act, total FROM settlement.progress", "drain|$n", 'so does a drain');
	$s->sql('SELECT settlement.resume()');
	$s->becomes('SELECT count(*) FROM settlement.progress', 0, '... which ends');
	$drainer->quit;
	is($s->sql("SELECT details ->> 'drained' FROM settlement.audit_log WHERE act = 'drain'"), 'true', '... and is in the audit log');

	# one that is invalid comes last, and cannot be put into the DLQ
	$s->sql("SET session_replication_role = replica; SELECT public.put('odd', symbol => 'NOSEPARATOR')");
	my $locker = $s->session;
	$locker->query_safe('BEGIN; LOCK TABLE settlement.dlq IN SHARE MODE');
	my $administrator = $s->session;
	my $total = $s->sql("SELECT settlement.enqueue_pending('trades')");
	$administrator->query_until(qr/begun/, "\\echo begun\nSELECT settlement.enqueue_pending('trades', dry_run => false);\n");
	my $done = 100 * int(($total - 1) / 100);
	$s->becomes('SELECT act, target, done, total IS NULL FROM settlement.progress', "enqueue_pending|public.trades|$done|t", 'so does a backfill');
	$locker->query_safe('COMMIT');
	$locker->quit;
	$s->becomes('SELECT count(*) FROM settlement.progress', 0, '... which ends');
	$administrator->quit;
	$s->settled_is('missed', 5000);
	is($s->sql("SELECT count, details FROM settlement.audit_log WHERE act = 'enqueue_pending'"), "$total|{}", '... and is in the audit log');
	$s->resolve('odd', 'FAILED', 'ticket 1', 'it may have been corrected, and sent, before');
};

scenario the_holder_of_the_oldest_snapshot => sub {
	my $holder = $s->session;
	my $pid = $holder->query_safe('SELECT pg_backend_pid()');
	$holder->query_safe("SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
	$s->trades('meanwhile', 100);
	$s->settled_is('meanwhile-', 100);
	my $says = "SELECT object, status, detail ~ '^holds the oldest snapshot, \\d+ transactions old, since \\d+ s' FROM settlement.storage_health WHERE what = 'snapshot'";
	my $user = $s->sql('SELECT current_user');
	$s->becomes($says, "process $pid ($user, report, idle in transaction)|ok|t", 'storage_health names it, and how old it is');
	$holder->query_safe('COMMIT');
	$holder->quit;
	$s->becomes("SELECT count(*) FROM settlement.storage_health WHERE object LIKE 'process $pid %'", 0, 'it is gone with its transaction');
};

# The wallet takes the connection and says nothing.
scenario a_probe_that_hangs => sub {
	$s->faults({ match => { path => 'lookup' }, action => 'hang', ms => 60_000 });
	my $asker = $s->session;
	my $pid = $asker->query_safe('SELECT pg_backend_pid()');
	my $started = time;
	$asker->query_until(qr/begun/, "\\echo begun\nSELECT count(*) FROM settlement.doctor();\n");
	$s->becomes("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid AND query ~ 'doctor'", 'Extension', 'doctor() waits for the wallet');
	is($s->sql("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.pid = $pid AND c.relnamespace = 'settlement'::regnamespace"), 0,
		'and holds no lock on our tables');
	$s->becomes("SELECT state FROM pg_stat_activity WHERE pid = $pid", 'idle', 'it gives up by itself');
	cmp_ok(time - $started, '<', 50, '... long before the wallet does');
	is($s->sql("SELECT status, detail ~ 'no complete reply within 3000 ms' FROM settlement.doctor() WHERE component = 'wallet'"), 'fail|t', 'and says so');
	$asker->quit;

	my ($status, undef, $err) = $s->try_sql("SET statement_timeout = '300ms'; SELECT count(*) FROM settlement.doctor()");
	like($err, qr/canceling statement due to statement timeout/, 'it can be cancelled');
	$s->faults;
	is($s->sql("SELECT status FROM settlement.doctor() WHERE component = 'wallet'"), 'ok', 'and is well again');
};

scenario the_queue_is_counted_after_a_restart => sub {
	$s->set(enabled => 'off');
	$s->trades('counted', 12_345);
	$s->node->restart;
	$s->becomes('SELECT settlement._queue_depth()', 12_345, 'by the launcher\'s probe');
	is($s->sql('SELECT ready FROM settlement.status'), 12_345, 'status shows it');
	like($s->sql("SELECT settlement.explain('counted-12000')"), qr/settlement\.enabled is off.*About 12k trades are before it, and none was settled within the last minute/s,
		'explain() says how many come first');
	$s->reset('enabled');
	$s->settled_is('counted', 12_345);
};

$s->at_rest(1);
$s->ledgers_are_equal;
done_testing();
