#!/usr/bin/perl
# An operator at work: pausing, switching off, reloading, limits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => "settlement.poll_interval = '1min'");

scenario pause_resume => sub {
	$s->sql("SELECT settlement.pause('maintenance')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	my $requests = $s->requests;
	$s->trades('paused', 10);
	is($s->sql('SELECT state FROM settlement.status'), 'paused', 'status says so');
	is($s->sql('SELECT acknowledged, in_flight FROM settlement.wait_paused()'), 't|0', 'and still with new trades');
	is($s->requests, $requests, 'nothing is sent');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('paused', 10);
	is($s->requests - $requests, 10, 'each by one request');
};

scenario pause_one_symbol => sub {
	$s->sql("SELECT settlement.pause('bad prices', 'ETH/USDT')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trades('eth', 5, symbol => 'ETH/USDT');
	$s->trades('btc', 5, symbol => 'BTC/USDT');
	$s->settled_is('btc', 5, 'other symbols settle');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused' AND symbol = 'ETH/USDT'", 5, 'its trades are put aside');
	is($s->sql("SELECT count(*) FROM trades WHERE symbol = 'ETH/USDT' AND trade_id LIKE 'eth%' AND settlement_status = 'PENDING'"), 5,
		'and PENDING');
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('eth', 5);
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'eth%' AND settlement_attempts <> 1"), 0, 'a pause is no attempt');
};

scenario pause_until => sub {
	$s->sql("SELECT settlement.pause('short', NULL, clock_timestamp() + interval '1 second')");
	$s->sql("SELECT settlement.pause('short', 'SOL-USDT', clock_timestamp() + interval '1 second')");
	$s->trades('until', 8);
	$s->settled_is('until', 8, 'the trades go on by themselves');
};

# Nothing else is deferred that would make the workers look.
scenario put_aside_until => sub {
	$s->sql("SELECT settlement.pause('short', 'SOL/USDT', clock_timestamp() + interval '1 second')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trades('aside', 5, symbol => 'SOL/USDT');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 5, 'they are put aside');
	$s->settled_is('aside', 5, 'and go on by themselves', 10);
};

scenario a_resume_that_is_rolled_back => sub {
	$s->sql("SELECT settlement.pause('wrong prices', 'ETH/USDT')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	my $operator = $s->session;
	$operator->query_safe('BEGIN');
	$operator->query_safe("SELECT settlement.resume('ETH/USDT')");
	# every worker reads the pauses again
	$s->sql("SELECT settlement.pause('another', 'SOL/USDT')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges another');
	$s->sql("SELECT settlement.resume('SOL/USDT')");
	$s->trades('undecided', 5, symbol => 'ETH/USDT');
	$s->trades('meanwhile', 50, symbol => 'BTC/USDT');
	$s->settled_is('meanwhile', 50);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 5, 'until it commits the pause holds');
	$operator->query_safe('ROLLBACK');
	$operator->quit;
	$s->trades('not-yet', 20, symbol => 'ETH/USDT');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 25, 'they are put aside');
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('not-yet', 20);
	$s->settled_is('undecided', 5);
};

# Retries that fall due in the meantime are no exception.
scenario a_retry_while_resume_is_undecided => sub {
	$s->set(retry_initial_backoff => '3s', retry_jitter => '0');
	$s->faults({ match => { trade_id => 'again', times => 1 }, action => 'status', status => 429 });
	$s->trade('again', symbol => 'ETH/USDT');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = 'again'", 1, 'one is to be tried again');
	$s->sql("SELECT settlement.pause('wrong prices', 'ETH/USDT')");
	my $operator = $s->session;
	$operator->query_safe('BEGIN');
	$operator->query_safe("SELECT settlement.resume('ETH/USDT')");
	$s->becomes("SELECT reason FROM settlement.deferred WHERE trade_id = 'again'", 'paused', 'it is put aside when it falls due');
	$operator->query_safe('COMMIT');
	$operator->quit;
	$s->status_is('again', 'SETTLED');
	$s->faults;
	$s->reset('retry_initial_backoff', 'retry_jitter');
};

# Whoever writes the table, by whatever statement.
scenario a_pause_deleted_by_hand => sub {
	for my $statement ('DELETE FROM settlement.pauses', 'TRUNCATE settlement.pauses')
	{
		my $name = (split / /, $statement)[0];
		$s->sql("SELECT settlement.pause('to be deleted', 'ETH/USDT')");
		$s->trades("aside-$name", 5, symbol => 'ETH/USDT');
		$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 5, 'they are put aside');
		$s->sql("SELECT settlement.pause('everything, too')");
		$s->trades("waits-$name", 5);
		$s->sql("SET session_replication_role = replica; $statement");
		$s->settled_is("aside-$name", 5);
		$s->settled_is("waits-$name", 5);
	}
};

# So that all new objects belong to one owner, for one.
scenario a_role_of_the_database => sub {
	$s->sql('CREATE ROLE owner_of_all; ALTER DATABASE postgres SET role = owner_of_all');
	local $ENV{PGOPTIONS} = '-c role=none';
	$s->node->restart;
	$s->trades('in-a-role', 5);
	$s->settled_is('in-a-role', 5);
	$s->sql('ALTER DATABASE postgres RESET role; DROP ROLE owner_of_all');
	$s->node->restart;
};

scenario nothing_spins => sub {
	$s->sql("SELECT settlement.pause('a long one')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->sql('SELECT settlement.rescan()');
	my $turns = $s->metric('turns');
	$s->sql('SELECT pg_sleep(1)');
	cmp_ok($s->metric('turns') - $turns, '<', 30, 'a sweep waits for the end of a pause');
	$s->sql('SELECT settlement.resume()');

	$s->faults({ match => { trade_id_prefix => 'down' }, action => 'status', status => 503 });
	$s->set(breaker_failures => 1, retry_initial_backoff => '1s', retry_jitter => '0');
	$s->trades('down', 2);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id LIKE 'down%'", 2, 'two are deferred, the breaker is open');
	$s->sql("SELECT settlement.pause('with the breaker open')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trade('news');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id LIKE 'down%' AND retry_at > clock_timestamp()", 0, 'they are due');
	$turns = $s->metric('turns');
	$s->sql('SELECT pg_sleep(1)');
	cmp_ok($s->metric('turns') - $turns, '<', 50, 'due trades wait for the end of a pause, too');
	$s->faults;
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('down', 2);
	$s->status_is('news', 'SETTLED');
	$s->reset('breaker_failures', 'retry_initial_backoff', 'retry_jitter');

	$s->faults({ match => { trade_id => 'held', times => 1 }, action => 'status', status => 503 });
	$s->set(retry_initial_backoff => '1s');
	$s->trade('held');
	$s->becomes('SELECT count(*) FROM settlement.deferred', 1, 'a trade is deferred');
	my $operator = $s->session;
	$operator->query_safe('BEGIN');
	$operator->query_safe('SELECT 1 FROM settlement.deferred FOR UPDATE');
	$s->sql('SELECT pg_sleep(2)');
	$turns = $s->metric('turns');
	$s->sql('SELECT pg_sleep(1)');
	cmp_ok($s->metric('turns') - $turns, '<', 50, 'a due trade that somebody has locked is waited for');
	$operator->query_safe('COMMIT');
	$operator->quit;
	$s->settled_is('held', 1);
	$s->reset('retry_initial_backoff');
};

scenario enabled_off => sub {
	$s->set(enabled => 'off');
	$s->becomes('SELECT state FROM settlement.status', 'disabled', 'status says so');
	my $requests = $s->requests;
	$s->trades('off', 10);
	# A worker that would send had a transaction in which to do it.
	$s->sql("SELECT settlement.rescan()");
	$s->sql("SELECT settlement.pause('to be acknowledged by all', 'NO/NE')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'all workers have looked');
	$s->sql("SELECT settlement.resume('NO/NE')");
	is($s->requests, $requests, 'nothing is sent');
	is($s->sql('SELECT count(*) FROM settlement.queue'), 10, 'all are queued');
	$s->set(enabled => 'on');
	$s->settled_is('off', 10);
};

scenario what_is_in_flight_is_recorded_after_enabled_off => sub {
	$s->faults({ match => { trade_id_prefix => 'flying' }, action => 'pass', delay_ms => 1000 });
	$s->trades('flying', 3);
	$s->becomes('SELECT in_flight FROM settlement.status', 3, 'three are in flight');
	$s->set(enabled => 'off');
	$s->settled_is('flying', 3);
	$s->faults;
	$s->set(enabled => 'on');
	$s->becomes('SELECT state FROM settlement.status', 'ok', 'on again');
};

scenario reload_of_the_worker_count => sub {
	for my $n (4, 1, 0, 2)
	{
		$s->set(workers => $n);
		$s->wait_for_workers($n);
		next if $n == 0;
		$s->trades("workers-$n", 20);
		$s->settled_is("workers-$n-", 20);
	}
};

scenario rate_limit => sub {
	$s->set(rate_limit => 20);
	my $start = Time::HiRes::time;
	$s->trades('limited', 60);
	$s->settled_is('limited', 60);
	cmp_ok(Time::HiRes::time - $start, '>', 1, '60 trades at 20 per second take their time');
	$s->reset('rate_limit');
};

scenario breaker_by_hand => sub {
	$s->sql("SELECT settlement.breaker_open('the wallet asked for it')");
	like($s->sql('SELECT state FROM settlement.status'), qr/^breaker open/, 'status says so');
	my $requests = $s->requests;
	$s->trades('broken', 5);
	$s->becomes('SELECT ready FROM settlement.status', 5, 'trades are queued');
	is($s->requests, $requests, 'nothing is sent');
	$s->sql('SELECT settlement.breaker_close()');
	$s->settled_is('broken', 5);
};

scenario drain => sub {
	$s->trades('drained', 200);
	$s->sql('CALL settlement.drain()');
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'drained%' AND settlement_status = 'SETTLED'"), 200, 'all have settled when it returns');
	is($s->sql('SELECT count(*) FROM settlement.queue'), 0, 'the queue is empty');
};

scenario restart_worker => sub {
	my @before = $s->worker_pids;
	my $slot = $s->sql("SELECT slot FROM settlement.workers WHERE pid = $before[0]");
	$s->sql("SELECT settlement.restart_worker($slot)");
	$s->becomes("SELECT count(*) FILTER (WHERE pid = $before[0]), count(*) FILTER (WHERE state = 'running') FROM settlement.workers", '0|2',
		'another one runs in its place');
};

# The Go service's rule: 1,001 trades at depth 1,000.
scenario queue_overflow => sub {
	$s->set(max_queue_depth => 1000);
	$s->sql("SELECT settlement.pause('overflow')");
	$s->trades('overflow', 1001);
	is($s->sql("SELECT count(*) FROM settlement.queue"), 1000, '1,000 are queued');
	is($s->sql("SELECT count(*), min(class), min(status) FROM settlement.dlq"), '1|queue_full|FAILED', 'one is dead-lettered as queue_full');
	$s->becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'overflow%' AND settlement_status = 'FAILED'", 1, 'its row says FAILED');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('overflow', 1000);
	$s->sql("SELECT settlement.redrive(trade_id, 'room again') FROM settlement.dlq");
	$s->settled_is('overflow', 1001, 'it settles when redriven');
	$s->reset('max_queue_depth');
};

$s->at_rest;
$s->ledgers_are_equal;

# From here on trades are booked elsewhere, too.
scenario reload_of_the_url => sub {
	my $second = Walletd->start(db => ':memory:');
	$second->fund(map { ("u$_", 'BTC', '1000', "u$_", 'USDT', '1000') } 0 .. 19);
	$s->set(wallet_url => $second->url);
	wait_for(sub { $s->trade('moved-' . time . rand, symbol => 'BTC/USDT'); $second->stats->{requests}{settle} > 0 }, 'the other wallet to be asked');
	$s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'all settle');
	my $requests = $s->requests;
	$s->trade('elsewhere', symbol => 'BTC/USDT');
	$s->status_is('elsewhere', 'SETTLED');
	is($s->requests, $requests, 'the first wallet hears nothing any more');

	$s->set(wallet_url => '');
	$s->becomes('SELECT state FROM settlement.status', 'no wallet_url', 'without a URL status says so');
	$s->trade('nowhere');
	cmp_ok($s->sql("SELECT count(*) FROM settlement.doctor() WHERE status = 'fail' AND detail ~ 'wallet_url'"), '>', 0, 'so does doctor()');
	$s->reset('wallet_url');
	$s->status_is('nowhere', 'SETTLED');

	my ($status, undef, $err) = $s->try_sql("ALTER SYSTEM SET settlement.wallet_url = 'http://user:secret\@127.0.0.1/'");
	isnt($status, 0, 'a URL with a password is refused');
	unlike($err, qr/secret/, 'and not repeated');
};

scenario url_of_a_database => sub {
	my $second = Walletd->start(db => ':memory:');
	$second->fund(map { ("u$_", 'BTC', '1000', "u$_", 'USDT', '1000') } 0 .. 19);
	$s->sql("ALTER DATABASE postgres SET settlement.wallet_url = '" . $second->url . "'");
	wait_for(sub { $s->trade('db-' . time . rand, symbol => 'BTC/USDT'); $second->stats->{requests}{settle} > 0 }, 'the database to have its own');
	$s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'all settle');
	$s->sql("ALTER DATABASE postgres RESET settlement.wallet_url");
	my $requests = $s->requests;
	wait_for(sub { $s->trade('back-' . time . rand, symbol => 'BTC/USDT'); $s->requests > $requests }, 'the first wallet to be asked again');
	$s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'all settle');
};

done_testing();
