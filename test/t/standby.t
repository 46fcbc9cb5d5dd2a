#!/usr/bin/perl
# settlement.send_after = standby: nothing of a claim is sent before a
# synchronous standby has it on disk, whatever becomes of the wait.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

# Sessions commit without the standby, so that only the workers care for it.
$ENV{PGOPTIONS} = '-c synchronous_commit=local';
my $s = Settlement->start(name => 'primary', streaming => 1, conf => <<'CONF');
synchronous_commit = on
synchronous_standby_names = 'standby'
settlement.send_after = standby
settlement.workers = 2
settlement.concurrency = 8
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
CONF
my $primary = $s->node;
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $waiting = 'waiting for standby';

# Claims wait for so long that they would have been sent long ago.
sub nothing_is_sent
{
	my ($name, $requests) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->becomes('SELECT state FROM settlement.status', $waiting, "$name: claims wait");
	is($s->requests, $requests // 0, "$name: nothing is sent");
}

# What doctor() says of standbys, as "status detail hint".
sub finding { return $s->sql("SELECT concat_ws(' ', status, detail, hint) FROM settlement.doctor() WHERE component = 'standby'") }

scenario no_standby_yet => sub {
	$s->trades('early', 20);
	nothing_is_sent('no standby');
	is($s->sql('SELECT DISTINCT phase, waits_for FROM settlement.in_flight'), 'sending|standby', 'in_flight says what for');
	cmp_ok($s->sql('SELECT in_flight FROM settlement.status'), '<=', 16, 'each worker holds what it may have in flight');
	like(finding(), qr/^fail no synchronous standby has confirmed .*stream now: 0 .*pg_stat_replication/, 'doctor() says what is missing');
	is($s->metric('sending'), 0, 'the metric sending is 0');
	like($s->sql("SELECT settlement.explain('early-1')"), qr/no synchronous standby has confirmed/, 'so does explain()');
};

# A commit whose wait is cancelled returns: that must not count.
scenario a_cancelled_wait => sub {
	my @pids = $s->worker_pids;
	$s->sql("SELECT pg_cancel_backend(pid) FROM settlement.workers");
	$s->sql("SELECT pg_terminate_backend(pid) FROM settlement.workers");
	$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND pid <> ALL ('{" . join(',', @pids) . "}')", 2,
		'workers leave at once although they have claims');
	nothing_is_sent('cancelled');
	is($s->sql('SELECT count(*) FROM settlement.deferred'), 0, 'what they had is proven unsent, not recovered');
	is($s->sql('SELECT count(*), max(attempts), bool_or(maybe_executed), max(first_sent_at) FROM settlement.queue'), '20|0|f|', 'the trades are as before');
};

# Emptying the list releases whoever waits inside a commit.
scenario no_synchronous_standby_wanted => sub {
	$s->sql("ALTER SYSTEM SET synchronous_standby_names = ''");
	$s->reload;
	$s->trades('unnamed', 5);
	$s->becomes(q{SELECT count(*) FROM settlement.doctor() WHERE detail ~ 'send_after is standby, and there is no synchronous standby'}, 1,
		'doctor() says that this cannot work');
	nothing_is_sent('list emptied');
	$s->sql('ALTER SYSTEM RESET synchronous_standby_names');
	$s->reload;
	nothing_is_sent('list restored');
};

# What is held is not yet on its way: whatever stops sending stops it too.
scenario held_claims_go_when_sending_stops => sub {
	my $none = "SELECT format('%s %s', (SELECT count(*) FROM settlement.claims), (SELECT count(*) FROM settlement.in_flight))";
	$s->sql("SELECT settlement.pause('look')");
	$s->becomes($none, '0 0', 'a pause');
	$s->sql('SELECT settlement.resume()');
	$s->becomes("$none <> '0 0'", 't', 'claimed again');
	$s->sql("SELECT settlement.breaker_open('by hand')");
	$s->becomes($none, '0 0', 'the breaker');
	$s->sql('SELECT settlement.breaker_close()');
	$s->becomes("$none <> '0 0'", 't', 'claimed again');
	$s->set(enabled => 'off');
	$s->becomes($none, '0 0', 'settlement.enabled');
	$s->reset('enabled');
	$s->becomes("$none <> '0 0'", 't', 'claimed again');
	is($s->requests, 0, 'still nothing is sent');
};

scenario the_setting_can_be_changed => sub {
	$s->set(send_after => 'local');
	$s->becomes(q{SELECT count(*) FROM settlement.doctor() WHERE component = 'standby' AND detail ~ 'of the workers wait'}, 1,
		'doctor() says that a worker waits inside its commit');
	is($s->requests, 0, 'which is before it sends');
	$s->sql("ALTER SYSTEM SET synchronous_standby_names = ''");
	$s->reload;
	$s->settled_is('early', 20, 'local: durable here is enough');
	$s->settled_is('unnamed', 5);
	$s->sql('ALTER SYSTEM RESET synchronous_standby_names');
	$s->reset('send_after');
	$s->ledgers_are_equal;
};

scenario with_a_standby => sub {
	my $requests = $s->requests;
	$s->trades('first', 50);
	nothing_is_sent('again', $requests);
	$primary->backup('base');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', "wal_receiver_status_interval = 1\nwal_retrieve_retry_interval = 100ms\n");
	$standby->start;
	$s->settled_is('first', 50, 'all settle when it comes');
	$s->trades('more', 200);
	$s->settled_is('more', 200, 'and what comes then');
	like(finding(), qr/^ok .*stream now: 1/, 'doctor() is content');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Outcomes do not wait: they are true without the standby.
scenario outcomes_are_recorded_without_it => sub {
	$s->faults({ match => { trade_id_prefix => 'slow' }, action => 'pass', reply_delay_ms => 900 });
	my $requests = $s->requests;
	$s->trades('slow', 4);
	wait_for(sub { $s->requests >= $requests + 4 }, 'all to be sent');
	my $user = $s->session;
	$user->query_safe("BEGIN; SELECT FROM trades WHERE trade_id = 'slow-4' FOR UPDATE");
	$standby->stop('immediate');
	$s->becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'slow-%' AND settlement_status = 'SETTLED'", 3, 'they settle while the standby is away');
	$s->becomes("SELECT count(*) FROM settlement.unapplied WHERE trade_id = 'slow-4'", 1, 'an outcome waits for its row');
	$user->quit;
	$s->settled_is('slow', 4, 'and is written while the standby is away');
	$s->faults;
	$requests = $s->requests;
	$s->trade('held');
	nothing_is_sent('standby away', $requests);
	$standby->start;
	$s->status_is('held', 'SETTLED', 'and this one when it is back');
};

# They have passed the limiter, but that was before the wallet asked for a rest.
scenario the_wallet_wants_a_rest_meanwhile => sub {
	$s->set(request_timeout => '10s');
	$s->faults({ match => { trade_id => 'tiring' }, action => 'status', delay_ms => 2000, status => 429, retry_after => 60 });
	my $requests = $s->requests;
	$s->trade('tiring');
	wait_for(sub { $s->requests > $requests }, 'one to be sent');
	$standby->stop('immediate');
	$s->trades('rested', 3);
	$s->becomes(q{SELECT count(*) FROM settlement.in_flight f WHERE waits_for = 'standby'}, 3, 'others wait for the standby');
	$s->becomes('SELECT limited_until IS NOT NULL FROM settlement._database_state()', 't', 'the wallet says 429');
	$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'what was held is given back');
	is($s->sql('SELECT max(attempts) FROM settlement.queue'), 0, 'unsent');
	$standby->start;
	$primary->wait_for_catchup($standby, 'flush');
	is($s->requests, $requests + 1, 'the standby alone sets nothing free');
	$s->faults;
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = 'tiring'", 1, 'who tired it waits, too');
	$s->sql("UPDATE settlement.deferred SET retry_at = now() WHERE trade_id = 'tiring'");
	$primary->restart;		# which forgets the hold
	$s->settled_is('rested', 3);
	$s->status_is('tiring', 'SETTLED');
	$s->reset('request_timeout');
	$s->set(request_timeout => '1s');
};

# Held for longer than the wallet remembers the key: it must be asked, not told again.
scenario the_idempotency_window_passes_meanwhile => sub {
	$s->set(idempotency_window => '2s', retry_initial_backoff => '1s', retry_jitter => '0');
	$s->faults({ match => { trade_id => 'aged', times => 1 }, action => 'status', status => 500, apply => \1 });
	$s->trade('aged');
	$s->becomes("SELECT reason FROM settlement.deferred WHERE trade_id = 'aged'", 'retry', 'the reply is lost');
	my ($requests, $lookups) = ($s->requests, $s->lookups);
	$standby->stop('immediate');
	nothing_is_sent('resend held', $requests);
	$s->becomes("SELECT reason FROM settlement.deferred WHERE trade_id = 'aged' UNION ALL SELECT waits_for FROM settlement.in_flight WHERE attempt = 2 AND "
		. "(SELECT lookup_first FROM settlement.queue WHERE trade_id = 'aged')", 'standby', 'it waits for a look-up now');
	$standby->start;
	$s->status_is('aged', 'SETTLED');
	is($s->requests, $requests, 'not sent again');
	is($s->lookups, $lookups + 1, 'but looked up');
	$s->faults;
	$s->reset('idempotency_window', 'retry_initial_backoff', 'retry_jitter');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
