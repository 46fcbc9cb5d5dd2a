#!/usr/bin/perl
# Answers that do not say what happened.  Each of these trades is booked by the
# wallet at once, or not at all, and the reply hides which: it must settle, and
# be in the ledger once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '100ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '100ms'
CONF

# Action, or action with what belongs to it; the attempt's outcome and class.
my @kinds = (
	[ garbage => {}, 'unknown wallet_reply' ],
	[ garbage => { apply => \1 }, 'unknown wallet_reply' ],
	[ empty => { apply => \1 }, 'unknown wallet_reply' ],
	[ wrong_trade_id => {}, 'unknown wallet_reply' ],
	[ success_string => {}, 'unknown wallet_reply' ],
	[ no_settlement_id => {}, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '<html><body>200</body></html>', content_type => 'text/html' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"success":true,"success":true,"settlement_id":"x"}' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"success":true,"settlement_id":"a\u0000b"}' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"success":true,"settlement_id":""}' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"a":' x 5000 . '1' . '}' x 5000 }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"success":true,"settlement_id":"x","quote_amount":"1"}' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '[{"success":true,"settlement_id":"x"}]' }, 'unknown wallet_reply' ],
	[ status => { status => 200, apply => \1, body => '{"success":false,"code":"WHO_KNOWS"}' }, 'unknown wallet_reply' ],
	[ status => { status => 500, apply => \1 }, 'unknown wallet_error' ],
	[ status => { status => 503 }, 'unknown wallet_error' ],
	[ status => { status => 408, apply => \1 }, 'unknown wallet_error' ],
	[ html => { apply => \1 }, 'unknown wallet_error' ],
	[ close => { apply => \1 }, 'unknown network' ],
	[ close => {}, 'unknown network' ],
	[ reset => { apply => \1 }, 'unknown network' ],
	[ truncate => {}, 'unknown wallet_reply' ],
	[ oversize => { bytes => 200000 }, 'unknown wallet_reply' ],
	[ hang => { apply => \1, ms => 4000 }, 'unknown network_timeout' ],
	[ drip => { bytes => 1, interval_ms => 100 }, 'unknown network_timeout' ],
	[ stall => { ms => 300 }, 'unknown network' ],
	[ raw => { body => "SSH-2.0-x\r\n", apply => \1 }, 'unknown wallet_reply' ],
	[ status => { status => 409 }, 'pending in_progress' ],
	[ status => { status => 202, apply => \1 }, 'pending wallet_pending' ],
	[ status => { status => 425 }, 'not_executed rate_limited' ],
);

scenario each_kind_settles_once => sub {
	my @rules;
	my $n = 0;
	for my $kind (@kinds)
	{
		my ($action, $more) = @$kind;
		push @rules, { name => 'kind-' . ++$n, match => { trade_id => "kind-$n", times => 1 }, action => $action, %$more };
	}
	$s->faults(@rules);
	$s->trades('kind', $n);
	$s->settled_is('kind', $n);
	for my $i (1 .. $n)
	{
		my ($action, $more, $expected) = @{ $kinds[$i - 1] };
		my $what = join ' ', $action, map { "$_=" . (ref $more->{$_} ? 'yes' : substr $more->{$_}, 0, 10) } sort keys %$more;
		$what =~ s/\s+/ /g;
		like($s->sql("SELECT string_agg(outcome || ' ' || class, ', ' ORDER BY at) FROM settlement.attempts WHERE trade_id = 'kind-$i'"),
			qr/^$expected/, "$what: $expected");
	}
	is($s->sql("SELECT count(*) FROM trades WHERE settlement_attempts < 2"), 0, 'each took two attempts at least');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_second_reply_is_not_taken_for_the_next_trade => sub {
	$s->faults({ match => { trade_id_prefix => 'twice' }, action => 'twice' });
	$s->set(workers => 1, concurrency => 1);
	$s->wait_for_workers(1);
	$s->trades('twice', 10);
	$s->settled_is('twice', 10);
	$s->ledgers_are_equal;
	$s->reset('workers', 'concurrency');
	$s->wait_for_workers(2);
};

# One request per attempt, also when the server closes a reused connection after
# it has read the request: libcurl on its own would send it again, silently.
scenario resend_by_libcurl => sub {
	$s->faults;
	$s->trades('warm', 5);
	$s->settled_is('warm', 5);
	$s->faults({ match => { reused => \1, trade_id_prefix => 'resend', times => 1 }, action => 'close' });
	my $requests = $s->requests;
	my $connections = $s->wallet->stats->{connections};
	for my $i (1 .. 8)
	{
		$s->trade("resend-$i");
		$s->status_is("resend-$i", 'SETTLED');
	}
	my $closed = $s->wallet->stats->{faults}{close};
	my $attempts = $s->sql("SELECT sum(settlement_attempts) FROM trades WHERE trade_id LIKE 'resend%'");
	cmp_ok($closed, '>', 0, 'reused connections were closed');
	cmp_ok($attempts, '>', 8, 'so that attempts failed');
	is($s->requests - $requests, $attempts, 'the wallet has seen one request per attempt');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id LIKE 'resend%' AND outcome <> 'unknown'"), 0,
		'each that failed counts as perhaps executed');
	$s->ledgers_are_equal;
};

# A wrong path or a proxy in between: no trade is to blame.
scenario proxy_404 => sub {
	my $opened = $s->metric('breaker_opened');
	$s->faults({ action => 'html', status => 404 });
	$s->trades('proxy', 40);
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'the breaker opens');
	$s->becomes("SELECT count(*) >= 30 FROM settlement.attempts WHERE trade_id LIKE 'proxy%' AND http_status = 404", 't',
		'many attempts draw the 404');
	is($s->sql("SELECT count(*) FROM settlement.dlq"), 0, 'nothing is dead-lettered');
	is($s->sql("SELECT coalesce(max(charged), 0) FROM settlement.deferred"), 0, 'nor charged');
	$s->faults;
	$s->settled_is('proxy', 40, '40 settle when it is gone');
	$s->ledgers_are_equal;
};

scenario one_404_while_others_are_answered => sub {
	$s->faults({ match => { trade_id => 'odd' }, action => 'html', status => 404 });
	$s->trade('odd');
	my $n = 0;
	wait_for(sub { $s->trade('even-' . ++$n); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'odd'") }, 'odd to die');
	like($s->sql("SELECT concat_ws(' ', status, class, charged) FROM settlement.dlq WHERE trade_id = 'odd'"),
		qr/^FAILED wallet_path 3$/, 'is charged, and dead as FAILED: it was never executed');
	$s->settled_is('even', $n, 'the others settle');
	$s->faults;
	$s->sql("SELECT settlement.redrive('odd', 'path mended')");
	$s->status_is('odd', 'SETTLED');
};

scenario wrong_credentials => sub {
	$s->faults({ action => 'status', status => 401 });
	my $opened = $s->metric('breaker_opened');
	$s->trade('auth');
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'one 401 opens the breaker');
	$s->faults;
	$s->status_is('auth', 'SETTLED');
	is($s->sql("SELECT count(*) FROM settlement.dlq"), 0, 'nothing is dead-lettered');
};

# Whoever sends us elsewhere is not the wallet.
scenario redirect => sub {
	my $elsewhere = Walletd->start(db => ':memory:');
	$s->faults({ action => 'status', status => 307, location => $elsewhere->url('/api/wallets/settle') });
	my $opened = $s->metric('breaker_opened');
	$s->trade('redirected');
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'one redirect opens the breaker');
	is($s->sql("SELECT DISTINCT class FROM settlement.attempts WHERE trade_id = 'redirected'"), 'wallet_redirect', 'it is not executed');
	is($elsewhere->stats->{requests}{settle}, 0, 'it is not followed');
	$s->faults;
	$s->status_is('redirected', 'SETTLED');
};

# 429 slows the wallet as a whole, and is charged to nobody.
scenario status_429 => sub {
	$s->faults({ match => { trade_id_prefix => 'limited', times => 4 }, action => 'status', status => 429, retry_after => 1 });
	my $requests = $s->requests;
	$s->trades('limited', 10);
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id LIKE 'limited%' AND outcome = 'not_executed' AND class = 'rate_limited'",
		't', 'some are told to wait');
	$s->trade('bystander');
	is($s->sql("SELECT count(*) FROM settlement._database_state() WHERE limited_until > now()"), 1, 'all wait');
	cmp_ok($s->requests - $requests, '<=', 21, 'instead of sending');
	$s->faults;
	$s->status_is('bystander', 'SETTLED');
	$s->settled_is('limited', 10);
	is($s->sql("SELECT count(*) FROM settlement.dlq"), 0, 'nobody is charged');
};

scenario pending_202 => sub {
	$s->faults({ match => { trade_id => 'pending', times => 5 }, action => 'status', status => 202, apply => \1 });
	$s->trade('pending');
	$s->status_is('pending', 'SETTLED');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id = 'pending' AND outcome = 'pending'"), 5,
		'five times not finished yet, which is more than max_attempts');
	is($s->effects_of('pending'), 1, 'one effect');
};

scenario pending_does_not_last_for_ever => sub {
	$s->set(pending_timeout => '300ms');
	$s->faults({ match => { trade_id => 'eternal' }, action => 'status', status => 202 });
	$s->trade('eternal');
	my $n = 0;
	wait_for(sub { $s->trade('busy-' . ++$n); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'eternal'") }, 'eternal to die');
	$s->status_is('eternal', 'UNKNOWN');
	$s->faults;
	$s->reset('pending_timeout');
	$s->sql("SELECT settlement.redrive('eternal', 'the wallet has finished')");
	$s->status_is('eternal', 'SETTLED');
};

# The same key with other content is never paid twice.
scenario key_conflict => sub {
	$s->faults({ match => { trade_id => 'changed' }, action => 'status', status => 422, body => { code => 'KEY_CONFLICT', message => 'other body' } });
	$s->trade('changed');
	$s->dead_letter_is('changed', 'UNKNOWN key_conflict KEY_CONFLICT 1');
	$s->status_is('changed', 'UNKNOWN');
	$s->faults;
	is($s->effects_of('changed'), 0, 'nothing was booked');
	$s->sql("SELECT settlement.lookup('changed')");
	$s->status_is('changed', 'SETTLED', 'the wallet does not know the key: sent again under it');
	is($s->lookups, 1, 'after a look-up');
};

$s->at_rest;
$s->ledgers_are_equal;

# All at once, at random but for the seed, on many trades.
scenario a_wallet_that_does_everything_wrong => sub {
	my %p = (garbage => 0.05, empty => 0.05, wrong_trade_id => 0.03, success_string => 0.03, close => 0.08, reset => 0.05, truncate => 0.03);
	$s->set(max_attempts => 1000);
	$s->faults((map { { name => $_, match => { trade_id_prefix => 'wild', p => $p{$_} }, action => $_,
			($_ =~ /^(close|reset|garbage|empty)$/ ? (apply => \1) : ()) } } sort keys %p),
		{ name => 'error', match => { trade_id_prefix => 'wild', p => 0.05 }, action => 'status', status => 500, apply => \1 },
		{ name => 'busy', match => { trade_id_prefix => 'wild', p => 0.02 }, action => 'status', status => 503 });
	$s->trades('wild', 2000);
	$s->settled_is('wild', 2000, '2000 settle', 120);
	cmp_ok($s->requests, '>', 2300, 'many requests went wrong');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# It fell due in time, but then the queue stood still for longer than the wallet
# remembers keys.
scenario expired_in_the_queue => sub {
	$s->sql("SELECT settlement.pause('a long one')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'nothing is claimed');
	$s->trade('expired');
	$s->sql(<<'SQL');
WITH d AS (DELETE FROM settlement.queue WHERE trade_id = 'expired' RETURNING *)
INSERT INTO settlement.queue SELECT (jsonb_populate_record(d::settlement.queue,
	jsonb_build_object('id', settlement.next_queue_id(), 'maybe_executed', true, 'attempts', 1,
		'first_sent_at', now() - interval '2 days'))).* FROM d
SQL
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT reason, last_class FROM settlement.deferred WHERE trade_id = 'expired'", 'needs_lookup|unknown_key', 'the wallet is asked');
	is($s->effects_of('expired'), 0, 'and nothing is sent again');
	$s->resolve('expired', 'FAILED', 'ticket 1', 'the wallet knows nothing of it');
};

done_testing();
