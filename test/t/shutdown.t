#!/usr/bin/perl
# Stopping, with work at hand; what is inserted while nobody works; coming back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => "settlement.retry_initial_backoff = '20ms'");
my $node = $s->node;

sub stop_log { my ($offset) = @_; return PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset) }

# Requests in flight are waited for, and their outcomes recorded; the rest stays queued.
scenario graceful_shutdown => sub {
	$s->faults({ match => { trade_id_prefix => 'pending' }, action => 'pass', delay_ms => 1500 });
	$s->set(workers => 1, concurrency => 8);
	$s->wait_for_workers(1);
	$s->trades('pending', 20);
	$s->becomes("SELECT count(*) FROM settlement.in_flight WHERE phase = 'waiting'", 8, '8 are in flight');
	$node->stop('fast');
	is($s->effects, 8, 'the wallet has booked those');
	$s->faults;
	$s->wallet->ok_json(POST => '/admin/reset-stats', {});
	$s->sql_of_stopped(<<'SQL', '8|0|12', 'their outcomes were recorded before the end, nothing is in flight, the others wait');
SELECT (SELECT count(*) FROM trades WHERE settlement_status = 'SETTLED'), (SELECT count(*) FROM settlement.claims),
       (SELECT count(*) FROM settlement.queue)
SQL
	$node->start;
	$s->settled_is('pending', 20, 'the others settle after the next start');
	is($s->requests, 12, 'and only those are sent');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# pg_ctl gives up after that; what would be waited for takes longer.
sub stops_within
{
	my ($seconds, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	local $ENV{PGCTLTIMEOUT} = $seconds;
	ok($node->stop('fast', fail_ok => 1), $name);
}

# An idle worker leaves when it is told to: no waiting for a poll or for the timeout.
scenario idle_workers_leave_at_once => sub {
	$s->set(poll_interval => '10min', shutdown_timeout => '2min');
	$s->trade('idle');
	$s->status_is('idle', 'SETTLED');
	stops_within(60, 'a stop does not wait for the timeout');
	$node->start;
	$s->set(workers => 0);
	$s->wait_for_workers(0);
	$s->reset('poll_interval', 'shutdown_timeout', 'workers');
};

# It does not wait longer than shutdown_timeout; what is left then is looked at as perhaps executed.
scenario shutdown_timeout => sub {
	$s->set(shutdown_timeout => '300ms', request_timeout => '5min');
	$s->faults({ match => { trade_id_prefix => 'hung' }, action => 'hang', apply => \1, ms => 300000 });
	$s->trades('hung', 4);
	wait_for(sub { $s->wallet->stats->{faults}{hang} >= 4 }, 'the requests to hang');
	stops_within(60, 'the server stops in spite of requests that hang');
	$s->faults;
	$node->start;
	$s->settled_is('hung', 4, 'they settle after the next start');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('shutdown_timeout', 'request_timeout', 'workers', 'concurrency');
};

scenario a_worker_that_is_terminated_is_replaced => sub {
	$s->wait_for_workers(2);
	my @before = $s->worker_pids;
	$s->sql("SELECT pg_terminate_backend($_)") for @before;
	$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND pid NOT IN ($before[0], $before[1])", 2,
		'two others run');
	$s->trade('replaced');
	$s->status_is('replaced', 'SETTLED');
};

scenario the_launcher_is_replaced => sub {
	my $pid = $s->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'settlement launcher'");
	like($pid, qr/^\d+$/, 'pg_stat_activity shows it');
	$s->sql("SELECT pg_terminate_backend($pid)");
	$s->becomes("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'settlement launcher' AND pid <> $pid", 1, 'another one runs');
	$s->trade('launched');
	$s->status_is('launched', 'SETTLED');
	is($s->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'settlement worker'"), 2, 'there are as many workers as before');
};

# Inserted while there is no worker, without the library even.
scenario insert_while_stopped => sub {
	$s->set(workers => 0);
	$s->wait_for_workers(0);
	$s->trades('stopped', 50);
	is($s->sql("SELECT count(*) FROM settlement.queue"), 50, 'all are queued');
	$s->reset('workers');
	$s->settled_is('stopped', 50, 'they settle when workers start');

	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->restart;
	is($s->sql("SELECT state FROM settlement.status"), 'not preloaded', 'status says so');
	is($s->sql("SELECT count(*) > 0 FROM settlement.doctor() WHERE status = 'fail' AND detail ~ 'preload'"), 't', 'so does doctor()');
	$s->trades('unloaded', 50);
	$s->trade('unloaded bad', price => '-1');
	is($s->sql("SELECT count(*) FROM settlement.queue"), 50, 'all are queued');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'settlement'");
	$node->restart;
	$s->settled_is('unloaded', 50, 'they settle with the library');
	$s->status_is('unloaded bad', 'FAILED');
	$s->at_rest(1);
	$s->ledgers_are_equal;
};

scenario restart_with_backlog => sub {
	$s->stop_wallet;
	$s->trades('backlog', 3000);
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id LIKE 'backlog%'", 't', 'sending is tried');
	$node->restart;
	$s->trades('more', 500);
	$node->stop('immediate');
	$node->start;
	$s->start_wallet;
	$s->settled_is('backlog', 3000);
	$s->settled_is('more', 500);
	$s->at_rest(1);
	$s->ledgers_are_equal;
};

scenario drop_and_create_again => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('queued');
	my ($status, undef, $err) = $s->try_sql('DROP EXTENSION settlement CASCADE');
	like($err, qr/trades are not settled/, 'refused while a trade is queued');
	is($s->sql("SELECT count(*) FROM settlement.queue"), 1, 'nothing was dropped');
	$s->sql('SELECT settlement.resume()');
	$s->status_is('queued', 'SETTLED', 'workers go on after the refusal');
	$s->sql(<<'SQL');
DROP EXTENSION settlement CASCADE;
CREATE EXTENSION settlement;
SQL
	$s->attach('public.trades');
	$s->wait_for_workers(2);
	$s->trade('again');
	$s->status_is('again', 'SETTLED');
	$s->ledgers_are_equal;
};

scenario a_clean_log => sub {
	unlike(stop_log(0), qr/PANIC|terminated by signal|TRAP:|was terminated/, 'no process crashed');
};

done_testing();
