#!/usr/bin/perl
# Trades of which the wallet may have moved the money: sent again under the same
# key or asked for, seen by the operator, never discarded, never paid twice.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use LostReply;
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '60ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '60ms'
settlement.poll_interval = '200ms'
CONF

# Insert other trades until the query says t.
sub while_others_settle
{
	my ($query, $name) = @_;
	my $n = 0;
	wait_for(sub { $s->trade("others-$name-" . ++$n); $s->sql($query) eq 't' }, $name);
	$s->settled_is("others-$name-", $n);
}

sub dies_among_others
{
	my ($trade) = @_;
	while_others_settle("SELECT count(*) = 1 FROM settlement.dlq WHERE trade_id = '$trade'", $trade);
}

# The first reply is lost; what comes after is a certain no, but only of itself.
scenario once_unknown_always_unknown => sub {
	$s->faults({ match => { trade_id => 'sticky', times => 1 }, action => 'close', apply => \1 },
		{ match => { trade_id => 'sticky' }, action => 'status', status => 404 });
	$s->trade('sticky', price => 1000, quantity => 2, symbol => 'BTC/USDT');
	dies_among_others('sticky');
	$s->status_is('sticky', 'UNKNOWN');
	is($s->sql("SELECT status, class, maybe_executed, safe_to_discard FROM settlement.dlq"), 'UNKNOWN|wallet_path|t|f', 'it is dead as UNKNOWN');
	is($s->sql("SELECT place, currency, trades, value_at_risk FROM settlement.unknown"), 'dlq|USDT|1|2000', 'the operator sees it');
	my ($status, undef, $err) = $s->try_sql("SELECT * FROM settlement.dlq_purge(trade_id => 'sticky', dry_run => false, reason => 'tidy up')");
	like($err, qr/not safe to discard.*HINT:.*resolve/s, 'and cannot discard it');
	$s->faults;
	$s->sql("SELECT settlement.redrive('sticky', 'path mended')");
	$s->status_is('sticky', 'SETTLED');
	is($s->effects_of('sticky'), 1, 'one effect: under the same key');
	is($s->sql("SELECT count(*) FROM settlement.unknown"), 0, 'nothing is unknown any more');
};

scenario rejected_after_a_lost_reply => sub {
	$s->faults({ match => { trade_id => 'refused', times => 1 }, action => 'close' });
	$s->trade('refused', buyer => 'poor', symbol => 'BTC/USDT', price => 50);
	$s->dead_letter_is('refused', 'FAILED insufficient_balance INSUFFICIENT_BALANCE 2', 'the wallet finally refuses the key: FAILED');
	is($s->sql("SELECT maybe_executed, safe_to_discard FROM settlement.dlq WHERE trade_id = 'refused'"), 'f|t', 'that is certain');
	$s->wallet->fund(qw(poor USDT 1000));
	$s->sql("SELECT settlement.redrive('refused', 'paid in')");
	$s->status_is('refused', 'SETTLED', 'a redrive takes a new key');
	is($s->effects_of('refused'), 1, 'one effect');
};

scenario resolve_where_asks_the_wallet => sub {
	$s->set(dead_letter_on_outage => 'on');
	$s->faults({ match => { trade_id_prefix => 'asked' }, action => 'close', apply => \1 });
	$s->trades('asked', 4);
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE status = 'UNKNOWN'", 4, 'four are UNKNOWN');
	$s->reset('dead_letter_on_outage');
	my $requests = $s->requests;
	$s->sql("SELECT * FROM settlement.resolve_where(class => 'network', dry_run => false, reason => 'ask')");
	$s->settled_is('asked', 4, 'the wallet knows of all');
	is($s->requests, $requests, 'nothing is sent again');
};

# 202 for ever: time runs only while others are answered.
scenario pending_alone_does_not_die => sub {
	$s->set(pending_timeout => '200ms');
	$s->faults({ match => { trade_id => 'endless' }, action => 'status', status => 202, apply => \1 });
	$s->trade('endless');
	$s->becomes("SELECT count(*) > 12 FROM settlement.attempts WHERE trade_id = 'endless'", 't', 'it is asked for a dozen times');
	$s->status_is('endless', 'PENDING', 'nobody else was answered: it lives');
	dies_among_others('endless');
	is($s->sql("SELECT status, class FROM settlement.dlq"), 'UNKNOWN|wallet_pending', 'with others it dies as UNKNOWN');
	my $requests = $s->requests;
	$s->sql("SELECT settlement.lookup('endless')");
	$s->status_is('endless', 'SETTLED', 'a look-up finds that it was booked');
	is($s->requests, $requests, 'nothing is sent again');
	$s->reset('pending_timeout');
};

# UNKNOWN, and its row is deleted: what was booked is found, nothing is sent.
scenario looked_up_without_its_row => sub {
	$s->set(pending_timeout => '200ms');
	$s->faults({ match => { trade_id => 'booked-gone' }, action => 'status', status => 202, apply => \1 },
		{ match => { trade_id => 'never-gone' }, action => 'status', status => 202 });
	for my $trade ('booked-gone', 'never-gone')
	{
		$s->trade($trade);
		dies_among_others($trade);
		$s->sql("CREATE TABLE IF NOT EXISTS gone AS TABLE trades WITH NO DATA; WITH d AS (DELETE FROM trades WHERE trade_id = '$trade' RETURNING *) INSERT INTO gone SELECT * FROM d");
	}
	$s->faults;
	my $requests = $s->requests;
	$s->sql("SELECT settlement.resolve_where(class => 'wallet_pending', dry_run => false, reason => 'ask')");
	$s->becomes("SELECT kind FROM settlement.discrepancies WHERE trade_id = 'booked-gone'", 'trade_row_gone', 'what was paid without a row is a discrepancy');
	waits_for_the_books($s, 'never-gone', 'unknown_key');
	is($s->requests, $requests, 'what the wallet does not know is not sent again');
	is($s->resolve('never-gone', 'FAILED', 'ticket 4', 'not in the books'), 'gone', 'a person says so');
	is($s->effects_of('never-gone'), 0, 'nothing was paid');
	$s->sql("SET session_replication_role = replica; INSERT INTO trades SELECT * FROM gone WHERE trade_id = 'booked-gone'");
	my ($id) = map { $_->{settlement_id} } $s->wallet->ledger('?trade_id=booked-gone');
	$s->sql("UPDATE trades SET settlement_status = 'SETTLED', settlement_id = '$id' WHERE trade_id = 'booked-gone'");
	$s->reset('pending_timeout');
};

# A page of somebody else's, with a status that looks well.
scenario html_for_everything => sub {
	$s->faults({ match => { trade_id_prefix => 'page' }, action => 'status', status => 200, content_type => 'text/html', body => '<html>Welcome</html>' });
	my $opened = $s->metric('breaker_opened');
	$s->trades('page', 30);
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'the breaker opens');
	$s->becomes("SELECT count(*) > 30 FROM settlement.attempts WHERE trade_id LIKE 'page%' AND class = 'wallet_reply'", 't', 'many attempts draw the page');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	$s->faults;
	$s->settled_is('page', 30, 'all settle when it is gone');
};

# What a restore does: rows that the wallet has settled say PENDING again.
scenario again_after_a_restore => sub {
	$s->trades('restored', 3);
	$s->settled_is('restored', 3);
	$s->sql("UPDATE trades SET settlement_status = 'PENDING', settlement_id = NULL WHERE trade_id LIKE 'restored%'");
	$s->sql("SET session_replication_role = replica; SELECT public.put('never-sent')");
	my $requests = $s->requests;
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)"), 4, 'they are taken up');
	$s->settled_is('restored', 3, 'the wallet was asked, and knows of them');
	$s->status_is('never-sent', 'SETTLED');
	is($s->requests - $requests, 1, 'only the one that it does not know is sent');
	is($s->effects_of("restored-$_"), 1, 'one effect') for 1 .. 3;
};

# What it has rejected may have been tried under another key before the restore.
my $dead = 'SELECT generation, lookup_first, safe_to_discard FROM settlement.dlq';
scenario rejected_before_a_restore => sub {
	$s->trade('bounced', buyer => 'nobody');
	$s->status_is('bounced', 'FAILED');
	is($s->sql("$dead WHERE trade_id = 'bounced'"), '0|f|t', 'what only we have sent is certain');
	$s->sql("DELETE FROM settlement.dlq WHERE trade_id = 'bounced'; UPDATE trades SET settlement_status = 'PENDING' WHERE trade_id = 'bounced'");
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)"), 1, 'it is taken up');
	$s->becomes("$dead WHERE trade_id = 'bounced'", '0|t|f', 'the wallet has rejected it; what followed is not known');
	my ($requests, $lookups) = ($s->requests, $s->lookups);
	is($s->sql("SELECT settlement.redrive('bounced', 'try')"), 'queue', 'redriven');
	$s->becomes("$dead WHERE trade_id = 'bounced'", '1|f|t', 'the next key was not used: it is sent, and rejected');
	is(join(' ', $s->requests - $requests, $s->lookups - $lookups), '1 1', '... after the wallet was asked');
	$s->sql("SELECT settlement.dlq_purge('bounced', dry_run => false, reason => 'tidy')");
};

# Later than the wallet remembers: what it does not know may have been paid.
scenario long_after_a_restore => sub {
	$s->trade('old');
	$s->status_is('old', 'SETTLED');
	$s->sql("UPDATE trades SET settlement_status = 'PENDING', settlement_id = NULL, executed_at = '2024-01-01' WHERE trade_id = 'old'");
	$s->wallet->post('/admin/forget-keys', {});
	my ($requests, $lookups) = ($s->requests, $s->lookups);
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)"), 1, 'it is taken up');
	waits_for_the_books($s, 'old', 'unknown_key');
	cmp_ok($s->lookups, '>', $lookups, 'the wallet was asked');
	is($s->requests, $requests, 'it is not sent again');
	resolve_from_the_books($s, 'old');

	$s->sql("SET session_replication_role = replica; SELECT public.put('old-but-unsent')");
	$s->sql("UPDATE trades SET executed_at = '2024-01-01' WHERE trade_id = 'old-but-unsent'");
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false, never_sent => true)"), 1, 'somebody knows better');
	$s->status_is('old-but-unsent', 'SETTLED');
};

# The same trade enqueued by its trigger once more: the same key.
scenario inserted_once_more => sub {
	$s->trade('twice');
	$s->status_is('twice', 'SETTLED');
	$s->sql("CREATE TABLE kept AS SELECT * FROM trades WHERE trade_id = 'twice'; DELETE FROM trades WHERE trade_id = 'twice'");
	$s->trade('twice');
	$s->status_is('twice', 'SETTLED');
	is($s->effects_of('twice'), 1, 'one effect');
	is($s->sql('SELECT count(*) FROM trades JOIN kept USING (trade_id, settlement_id)'), 1, 'the same settlement');

	$s->sql("DELETE FROM trades WHERE trade_id = 'twice'");
	$s->trade('twice', price => 7777);
	$s->status_is('twice', 'UNKNOWN');
	$s->dead_letter_is('twice', 'UNKNOWN key_conflict KEY_CONFLICT 1', 'with other content it is a conflict');
	is($s->sql("SELECT safe_to_discard, final_rejection FROM settlement.dlq WHERE trade_id = 'twice'"), 'f|f', 'not safe to discard, and of the same key for ever');
	is($s->effects_of('twice'), 1, 'nothing more was paid');
	$s->sql("SELECT settlement.redrive('twice', 'try')");
	$s->dead_letter_is('twice', 'UNKNOWN key_conflict KEY_CONFLICT 2', 'a redrive ends the same way');
	my $requests = $s->requests;
	$s->sql("SELECT settlement.lookup('twice')");
	waits_for_the_books($s, 'twice', 'wallet_reply');
	is($s->requests, $requests, 'a look-up that finds other amounts settles nothing');
	$s->sql("UPDATE trades SET price = kept.price FROM kept WHERE trades.trade_id = 'twice'");
	$s->resolve('twice', 'SETTLED', $s->sql('SELECT settlement_id FROM kept'), 'the price was wrong');
	$s->status_is('twice', 'SETTLED', 'a person settles it from the books');
};

# Past the window nothing is sent, whatever the wallet knows or does not.
scenario the_wallet_forgot => sub {
	$s->set(idempotency_window => 1, retry_initial_backoff => '1500ms', retry_max_backoff => '1500ms');
	$s->faults({ match => { trade_id => 'forgotten' }, action => 'close', apply => \1, forget => \1 });
	$s->trade('forgotten');
	waits_for_the_books($s, 'forgotten', 'unknown_key');
	is($s->effects_of('forgotten'), 1, 'it is not paid twice');
	is($s->sql("SELECT place, trades FROM settlement.unknown"), 'needs_lookup|1', 'the operator sees it');
	my $requests = $s->requests;
	my $lookups = $s->lookups;
	$s->sql("SELECT settlement.lookup('forgotten')");
	wait_for(sub { $s->lookups > $lookups }, 'another look-up');
	waits_for_the_books($s, 'forgotten', 'unknown_key');
	is($s->requests, $requests, 'nor sent after it was asked for again');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'age alone does not kill it');
	resolve_from_the_books($s, 'forgotten');
	$s->status_is('forgotten', 'SETTLED');
};

scenario a_wallet_without_look_up => sub {
	$s->set(wallet_lookup => 'off');
	$s->faults({ match => { trade_id => 'nobody-knows' }, action => 'close' });
	my ($requests, $lookups) = ($s->requests, $s->lookups);
	$s->trade('nobody-knows');
	$s->becomes("SELECT reason, retry_at FROM settlement.deferred WHERE trade_id = 'nobody-knows' AND reason = 'needs_lookup'", 'needs_lookup|infinity', 'it waits for a person');
	is($s->sql("SELECT status FROM settlement.doctor(probe => false) WHERE component = 'needs_lookup'"), 'warn', 'doctor() says so');
	my (undef, undef, $err) = $s->try_sql("SELECT settlement.lookup('nobody-knows')");
	like($err, qr/no look-up.*HINT:.*resolve/s, 'lookup() says what to do');
	(undef, undef, $err) = $s->try_sql("SELECT settlement.resolve('nobody-knows', 'FAILED', '', 'gone')");
	like($err, qr/a reference is required/, 'resolve() needs a reference');
	is($s->requests - $requests, 1, 'sent once');
	is($s->lookups, $lookups, 'never looked up');
	$s->sql("SELECT settlement.resolve('nobody-knows', 'FAILED', 'ticket 3', 'not in the books')");
	$s->status_is('nobody-knows', 'FAILED');

	# adopt() has all that waits looked up: it waits, and what comes goes on
	$s->faults;
	$s->sql("SELECT settlement.pause('to adopt')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trades('of-before', 20);
	$s->trade('of-before-poor', buyer => 'nobody');
	$s->sql("SELECT settlement.adopt('no other is left')");
	$s->sql('SELECT settlement.resume()');
	$s->trades('of-after', 5);
	$s->settled_is('of-after', 5);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'needs_lookup' AND retry_at = 'infinity'", 21, 'what adopt() found waits for a person');
	is($s->lookups, $lookups, 'the wallet is asked of none');
	$s->sql("SET session_replication_role = replica; SELECT public.put('unsent-before')");
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false, never_sent => true)"), 1, 'one was never sent, as somebody says');
	$s->status_is('unsent-before', 'SETTLED');
	is($s->lookups, $lookups, '... and cannot be asked for');
	$s->set(wallet_lookup => 'on', idempotency_window => '1d');
	$s->sql("SELECT settlement.lookup(trade_id) FROM settlement.deferred");
	$s->settled_is('of-before', 20);
	$s->becomes("$dead WHERE trade_id = 'of-before-poor'", '0|f|t', 'of a key that it did not know, and rejects now, nothing followed');
	$s->sql("SELECT settlement.dlq_purge('of-before-poor', dry_run => false, reason => 'tidy')");
	is($s->sql("SELECT count(*) FROM settlement.identity i, trades t WHERE t.trade_id ~ '^of-(before|after)' AND (t.executed_at < i.original_until) <> (t.trade_id ~ 'before')"),
		0, 'what may have been sent from elsewhere is told from what was not');
	$s->reset('wallet_lookup', 'idempotency_window', 'retry_initial_backoff', 'retry_max_backoff');
};

$s->faults;
$s->at_rest;
$s->ledgers_are_equal;
done_testing();
