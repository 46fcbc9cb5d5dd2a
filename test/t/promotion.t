#!/usr/bin/perl
# Standbys, their promotion, and copies that must send nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(name => 'primary', streaming => 1, conf => <<'CONF');
max_connections = 30
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
CONF
my $primary = $s->node;
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $copy = PostgreSQL::Test::Cluster->new('copy');

sub processes
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'settlement%'");
}

sub state_of { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT state FROM settlement.status') }

$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

scenario a_standby_has_no_workers => sub {
	$s->trades('first', 20);
	$s->settled_is('first', 20);
	$primary->wait_for_catchup($standby);
	is(processes($standby), 0, 'neither launcher nor workers');
	is($standby->safe_psql('postgres', "SELECT count(*) FROM trades WHERE settlement_status = 'SETTLED'"), 20, 'it has what settled');
	like($standby->safe_psql('postgres', 'SELECT settlement.prometheus()'), qr/^settlement_sending\{.*?\} 0\n.*^settlement_standby\{.*?\} 1\n/ms, 'it can be scraped, and says what it is');
	$s->ledgers_are_equal;
};

# A base backup that is started elsewhere, as for a test system.
scenario a_copy_sends_nothing => sub {
	$s->sql("SELECT settlement.pause('backup')");
	$s->trades('backlog', 30);
	$primary->backup('clone');
	$copy->init_from_backup($primary, 'clone');
	$copy->append_conf('postgresql.conf', "archive_mode = off\n");
	my $requests = $s->requests;
	$copy->start;
	ok($copy->poll_query_until('postgres', 'SELECT state FROM settlement.status', 'fenced'), 'status of the copy says fenced');
	$copy->safe_psql('postgres', 'SELECT settlement.resume()');
	$copy->safe_psql('postgres', "SELECT put('from the copy')");
	ok($copy->poll_query_until('postgres', "SELECT count(*) > 0 FROM settlement.doctor() WHERE status = 'fail' AND detail ~* 'identity|may send|fence|copy'"),
		'doctor() says why');
	is($copy->safe_psql('postgres', 'SELECT count(*) FROM settlement.claims'), 0, 'it claims nothing');
	is($s->requests, $requests, 'it sends nothing');
	$copy->stop;
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('backlog', 30, 'the original goes on');
};

# The primary dies with a backlog and with requests in flight that were booked.
scenario promotion => sub {
	$s->faults({ match => { trade_id_prefix => 'flight', times => 1 }, action => 'hang', apply => \1, ms => 60000 });
	$s->trades('flight', 5);
	wait_for(sub { $s->wallet->stats->{faults}{hang} >= 5 }, 'the requests to be booked');
	$s->sql("SELECT settlement.pause('keep a backlog')");
	$s->trades('waiting', 50);
	$s->sql("BEGIN; INSERT INTO settlement.pauses (symbol, reason, by) SELECT DISTINCT symbol, 'prepared', 'x' FROM trades; PREPARE TRANSACTION 'pause'");
	$primary->wait_for_catchup($standby);
	$primary->stop('immediate');
	my $epoch = $s->wallet->stats->{epoch};
	is(processes($standby), 0, 'the standby has no workers before its promotion');

	$standby->promote;
	$s->{node} = $standby;
	$s->wait_for_workers(2);
	is(state_of($standby), 'paused', 'what was paused still is');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('flight', 5, 'what was in flight settles');
	$s->settled_is('waiting', 50, 'so does the backlog');
	$s->trades('after', 10);
	$s->settled_is('after', 10, 'and what is new');
	cmp_ok($s->wallet->stats->{epoch}, '>', $epoch, 'the wallet has seen a higher epoch');

	# nobody here has seen its PREPARE, though this server has run since before it
	$s->sql("COMMIT PREPARED 'pause'");
	$s->sql('SELECT settlement.wait_paused()');
	$s->trades('in-pause', 5);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 5, 'a pause that was prepared on the old primary counts');
	$s->sql('SELECT settlement.resume(symbol) FROM settlement.pauses');
	$s->settled_is('in-pause', 5, 'until its end');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Split brain: the old primary comes back and does not know.
scenario the_old_primary_is_refused => sub {
	my ($requests, $effects) = ($s->requests, $s->effects);
	$primary->start;
	$primary->safe_psql('postgres', 'SELECT settlement.resume()');
	ok($primary->poll_query_until('postgres', "SELECT state FROM settlement.status", 'stale epoch'), 'its status says stale epoch');
	is($s->effects, $effects, 'it has no effect at the wallet');
	is($primary->safe_psql('postgres', "SELECT count(*) FROM settlement.dlq"), 0, 'and dead-letters nothing');
	is($primary->safe_psql('postgres', "SELECT count(*) FROM trades WHERE trade_id LIKE 'waiting%' AND settlement_status = 'PENDING'"), 50,
		'its trades stay PENDING');
	$primary->stop;
	$s->trade('still here');
	$s->status_is('still here', 'SETTLED', 'the new primary is not disturbed');
	$s->ledgers_are_equal;
};

scenario restart_of_the_new_primary => sub {
	$standby->restart;
	$s->trades('restarted', 10);
	$s->settled_is('restarted', 10, 'it may still send');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# A promoted server that goes down before any worker of it has run.
scenario a_crash_right_after_the_promotion => sub {
	my $next = PostgreSQL::Test::Cluster->new('next');
	$standby->backup('next');
	$next->init_from_backup($standby, 'next', has_streaming => 1);
	$next->append_conf('postgresql.conf', "settlement.databases = 'none'");
	$next->start;
	$s->sql("SELECT settlement.pause('keep a backlog')");
	$s->trades('left', 20);
	$standby->wait_for_catchup($next);
	$standby->stop('immediate');
	$next->promote;
	$next->stop('immediate');
	$next->append_conf('postgresql.conf', "settlement.databases = ''");
	$next->start;
	$s->{node} = $next;
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('left', 20, 'goes on by itself all the same');
	$s->at_rest;
	$s->ledgers_are_equal;

	# its directory has been that of a standby, but this is another recovery
	$next->stop;
	$next->append_conf('postgresql.conf', "restore_command = 'false'\nrecovery_target_action = 'promote'");
	$next->set_recovery_mode;
	$next->start;
	ok($next->poll_query_until('postgres', 'SELECT state FROM settlement.status', 'fenced'), 'recovered later, it is fenced');
	$next->restart;
	ok($next->poll_query_until('postgres', 'SELECT state FROM settlement.status', 'fenced'), 'also after a restart');
};

done_testing();
