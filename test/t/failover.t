#!/usr/bin/perl
# Failover to a standby that lacks the last transactions, while the old primary
# still runs: what is promised without settlement.send_after = standby, and with.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(name => 'first', streaming => 1, conf => <<'CONF');
synchronous_commit = local
wal_retrieve_retry_interval = 100ms
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
CONF
my $first = $s->node;

sub new_standby
{
	my ($name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$s->node->backup("for_$name");
	$standby->init_from_backup($s->node, "for_$name", has_streaming => 1);
	$standby->start;
	$s->node->wait_for_catchup($standby);
	return $standby;
}

# From now on nothing of the primary reaches the standby.
sub cut
{
	my ($standby) = @_;
	$standby->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = 'host=/nonexistent'");
	$standby->reload;
	$s->becomes('SELECT count(*) FROM pg_stat_replication', 0, 'the standby is cut off');
}

sub fail_over_to
{
	my ($standby) = @_;
	my $old = $s->node;
	$standby->promote;
	$s->{node} = $standby;
	$s->sql('ALTER SYSTEM RESET primary_conninfo');
	$s->becomes("SELECT count(*) > 0 FROM settlement.workers WHERE state = 'running'", 't', 'the standby takes over');
	return $old;
}

my $second = new_standby('second');

scenario without_the_setting => sub {
	$s->sql("SELECT settlement.pause('keep it')");
	$s->trades('known', 3);
	$s->node->wait_for_catchup($second);
	cut($second);
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('known', 3, 'settled, and the standby knows the trades only');
	$s->trades('unknown', 2);
	$s->settled_is('unknown', 2, 'settled, and the standby does not know the trades');
	my ($requests, $effects, $epoch) = ($s->requests, $s->effects, $s->wallet->stats->{epoch});

	fail_over_to($second);
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('known', 3, 'what it knows settles again');
	is($s->requests, $requests + 3, 'sent again');
	is($s->effects, $effects, 'under the same keys: no further effect');
	cmp_ok($s->wallet->stats->{epoch}, '>', $epoch, 'with a higher epoch');
	like($s->ledger_differences, qr/^lost 0, doubled 0, unknown to the database 2,/, 'what it does not know was paid: that is not promised');
	$s->trades('unknown', 2);
	$s->settled_is('unknown', 2, 'the engine can insert it again');
	is($s->effects, $effects, 'it is not paid again');
	$s->ledgers_are_equal;
};

# The old primary runs on and takes trades: the wallet refuses it.
scenario an_old_primary_that_still_runs => sub {
	my ($effects, $new) = ($s->effects, $s->node);
	$s->{node} = $first;
	$s->trades('split', 5);
	$s->becomes('SELECT state FROM settlement.status', 'stale epoch', 'its status says stale epoch');
	like($s->sql("SELECT string_agg(detail, ' ') FROM settlement.doctor() WHERE status = 'fail'"), qr/newer primary/, 'doctor() says why');
	$s->trades('split again', 5);
	$first->restart;
	$s->becomes('SELECT state FROM settlement.status', 'stale epoch', 'also when it has restarted');
	$s->trades('split at last', 5);
	is($s->sql("SELECT settlement_status, count(*) FROM trades WHERE trade_id LIKE 'split%' GROUP BY 1"), 'PENDING|15',
		'INSERTs go on, and nothing becomes of them');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	is($s->effects, $effects, 'nothing is paid');
	$first->stop('immediate');
	$s->{node} = $new;
	$s->trade('undisturbed');
	$s->status_is('undisturbed', 'SETTLED', 'the new primary is not disturbed');
	$s->ledgers_are_equal;
};

my $third = new_standby('third');

scenario with_the_setting => sub {
	$s->sql("ALTER SYSTEM SET synchronous_standby_names = 'third'");
	$s->set(send_after => 'standby');
	$s->trades('safe', 20);
	$s->settled_is('safe', 20, 'with the standby they settle');
	$s->sql("SELECT settlement.pause('keep it')");
	$s->trades('seen', 3);
	$s->node->wait_for_catchup($third);
	cut($third);
	my ($requests, $epoch) = ($s->requests, $s->wallet->stats->{epoch});
	$s->sql('SELECT settlement.resume()');
	$s->trades('unseen', 2);
	$s->becomes('SELECT state FROM settlement.status', 'waiting for standby', 'nobody confirms the claims');
	is($s->requests, $requests, 'nothing is sent, not even what the standby knows');

	my $old = fail_over_to($third);
	$s->set(send_after => 'local');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('seen', 3, 'what the standby knows settles');
	$s->becomes('SELECT settlement_status FROM trades WHERE trade_id LIKE \'unseen%\'', '', 'the rest is lost');
	is($s->requests, $requests + 3, 'and was not sent');
	is($s->effects_of("unseen-$_"), 0, "unseen-$_ is not paid") for 1 .. 2;
	cmp_ok($s->wallet->stats->{epoch}, '>', $epoch, 'the epoch is higher');
	is($old->safe_psql('postgres', 'SELECT state FROM settlement.status'), 'waiting for standby', 'the old primary still waits');
	$old->stop('immediate');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
