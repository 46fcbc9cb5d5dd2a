#!/usr/bin/perl
# A wallet that does not answer in time: the same key again, and who pays for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '500ms'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '50ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '50ms'
CONF

sub attempts_of
{
	my ($trade) = @_;
	return $s->sql("SELECT string_agg(concat_ws(' ', outcome, class, phase), ', ' ORDER BY at) FROM settlement.attempts WHERE trade_id = '$trade'");
}

scenario timeout_then_success => sub {
	$s->faults({ match => { trade_id => 'late', times => 1 }, action => 'hang', ms => 3000 });
	$s->trade('late');
	$s->status_is('late', 'SETTLED');
	is(attempts_of('late'), 'unknown network_timeout sent', 'the first attempt is on record');
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'late'"), 2, 'it took two');
	is($s->effects_of('late'), 1, 'one effect');
};

scenario timeout_after_the_effect => sub {
	$s->faults({ match => { trade_id => 'booked', times => 1 }, action => 'pass', reply_delay_ms => 1500 });
	my $replays = $s->wallet->stats->{settle}{replays};
	$s->trade('booked');
	$s->status_is('booked', 'SETTLED');
	is($s->wallet->stats->{settle}{replays} - $replays, 1, 'the second request was answered from memory');
	is($s->effects_of('booked'), 1, 'one effect');
	$s->ledgers_are_equal;
};

scenario a_slow_reply_within_the_timeout_is_waited_for => sub {
	$s->faults({ match => { trade_id => 'slow' }, action => 'pass', delay_ms => 250 });
	my $before = $s->requests;
	$s->trade('slow');
	$s->status_is('slow', 'SETTLED');
	is($s->requests - $before, 1, 'with one request');
};

# Outcomes that wait for a row are tried between turns, each for as long as
# apply_timeout: what is submitted meanwhile leaves before, not when it has expired.
scenario sent_before_what_takes_long => sub {
	$s->set(workers => 1, apply_timeout => '900ms');
	$s->sql(<<'SQL');
CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE TRIGGER doze BEFORE UPDATE ON trades FOR EACH ROW WHEN (NEW.trade_id LIKE 'doze%') EXECUTE FUNCTION doze();
SQL
	$s->trades('doze', 12);
	$s->becomes("SELECT count(*) FROM settlement.unapplied WHERE trade_id LIKE 'doze%' AND failures > 0", 12, 'outcomes wait for their rows');
	for my $n (1 .. 5)
	{
		$s->trade("beside-$n");
		$s->settled_is("beside-$n", 1, 'a trade settles beside them');
	}
	is($s->sql("SELECT string_agg(concat_ws(' ', trade_id, class, phase), ', ') FROM settlement.attempts WHERE trade_id LIKE 'beside-%'"), '', 'at the first attempt');
	$s->sql('DROP TRIGGER doze ON trades');
	$s->settled_is('doze', 12);
	$s->reset('workers', 'apply_timeout');
};

# Insert other trades until the query says t.
sub while_others_settle
{
	my ($query, $name) = @_;
	my $n = 0;
	wait_for(sub { $s->trade("others-$name-" . ++$n); $s->sql($query) eq 't' }, $name);
	$s->settled_is("others-$name-", $n);
}

scenario three_timeouts_while_others_settle => sub {
	$s->faults({ match => { trade_id => 'stuck' }, action => 'hang', ms => 3000 });
	$s->trade('stuck');
	while_others_settle("SELECT count(*) = 1 FROM settlement.dlq WHERE trade_id = 'stuck'", 'three');
	$s->status_is('stuck', 'UNKNOWN');
	like($s->sql("SELECT concat_ws(' ', status, class, charged, maybe_executed) FROM settlement.dlq WHERE trade_id = 'stuck'"),
		qr/^UNKNOWN network_timeout 3 t$/, 'charged three times, and perhaps executed');
	like(attempts_of('stuck'), qr/^(unknown network_timeout sent(, |$)){3,}$/, 'each attempt is on record');
	my $requests = $s->requests;
	$s->trade('after stuck');
	$s->status_is('after stuck', 'SETTLED');
	is($s->requests - $requests, 1, 'it is not sent any more');
};

scenario unknown_is_resolved_by_asking_the_wallet => sub {
	$s->faults;
	is($s->effects_of('stuck'), 0, 'the wallet never booked it');
	$s->sql("SELECT settlement.redrive('stuck', 'the wallet is back')");
	$s->status_is('stuck', 'SETTLED');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id = 'stuck' AND generation > 0"), 0, 'under the same key');
	is($s->effects_of('stuck'), 1, 'one effect');
};

scenario alone_it_does_not_die => sub {
	$s->faults({ match => { trade_id => 'alone' }, action => 'hang', ms => 3000 });
	$s->trade('alone');
	$s->becomes("SELECT count(*) >= 5 FROM settlement.attempts WHERE trade_id = 'alone'", 't', 'five attempts and more fail');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'alone'"), 0, 'nobody was answered: nothing is charged');
	$s->status_is('alone', 'PENDING');
	$s->faults;
	$s->status_is('alone', 'SETTLED', 'it settles when the wallet answers again');
};

scenario alone_it_dies_with_dead_letter_on_outage => sub {
	$s->set(dead_letter_on_outage => 'on');
	$s->faults({ match => { trade_id => 'outage' }, action => 'hang', ms => 3000 });
	$s->trade('outage');
	$s->dead_letter_is('outage', 'UNKNOWN network_timeout - 3');
	$s->status_is('outage', 'UNKNOWN');
	$s->reset('dead_letter_on_outage');
	$s->faults;
	$s->sql("SELECT settlement.redrive('outage', 'the wallet is back')");
	$s->status_is('outage', 'SETTLED');
};

scenario lookup_finds_what_a_timeout_hid => sub {
	$s->faults({ match => { trade_id => 'hidden' }, action => 'hang', ms => 3000, apply => \1 });
	$s->trade('hidden');
	while_others_settle("SELECT count(*) = 1 FROM settlement.dlq WHERE trade_id = 'hidden'", 'hidden');
	$s->status_is('hidden', 'UNKNOWN');
	my $requests = $s->requests;
	$s->sql("SELECT settlement.lookup('hidden')");
	$s->status_is('hidden', 'SETTLED', 'the look-up finds the settlement');
	is($s->requests, $requests, 'and nothing is sent again');
	is($s->effects_of('hidden'), 1, 'one effect');
};

# The wallet may have forgotten the key by then: nothing is sent, it is asked.
scenario past_the_idempotency_window => sub {
	$s->set(idempotency_window => 1);
	$s->faults({ match => { trade_id => 'old-booked' }, action => 'hang', ms => 3000, apply => \1 },
		{ match => { trade_id => 'old-unknown' }, action => 'hang', ms => 3000 });
	$s->trade('old-booked');
	$s->trade('old-unknown');
	$s->status_is('old-booked', 'SETTLED', 'a look-up finds what was booked');
	$s->becomes("SELECT reason FROM settlement.deferred WHERE trade_id = 'old-unknown'", 'needs_lookup', 'the other waits for the wallet\'s books');
	cmp_ok($s->sql("SELECT count(*) FROM settlement.doctor() WHERE status <> 'ok' AND (component || detail) ~* 'look'"), '>', 0, 'doctor() says so');
	$s->faults;
	my $requests = $s->requests;
	my $lookups = $s->metric('lookups');
	$s->sql("SELECT settlement.lookup('old-unknown')");
	$s->becomes("SELECT value > $lookups FROM settlement.metrics WHERE name = 'lookups'", 't', 'it is asked again');
	is($s->requests, $requests, 'but never sent again');
	$s->resolve('old-unknown', 'FAILED', 'ticket 2', 'the books do not have it');
	$s->status_is('old-unknown', 'FAILED');
	is($s->effects_of('old-unknown'), 0, 'no effect');
	$s->reset('idempotency_window');
};

scenario attempt_history => sub {
	$s->set(attempt_history => 'all');
	$s->trade('recorded');
	$s->status_is('recorded', 'SETTLED');
	is(attempts_of('recorded'), 'settled replied', 'successes are kept when asked for');
	$s->reset('attempt_history');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
