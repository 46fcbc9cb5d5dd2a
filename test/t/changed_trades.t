#!/usr/bin/perl
# Somebody else changes a trade's row while the trade is queued or in flight.
# What was enqueued is paid, the outcome is written, and a person is told.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Hold;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.poll_interval = '200ms'
settlement.retry_initial_backoff = '20ms'
CONF
my $hold = Hold->new($s);
my %snapshot = (symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2', price => '100', quantity => '2', buyer_fee => '0.5', seller_fee => '0.25');

# Enqueue trades and, while nothing is sent, do that to their rows.
sub while_queued
{
	my ($names, $sql) = @_;
	$s->sql("SELECT settlement.pause('test')");
	$s->trade($_, %snapshot) for @$names;
	$s->sql($sql);
	$s->sql('SELECT settlement.resume()');
}

sub discrepancy_is
{
	my ($trade, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $s->becomes(<<SQL, $expected, $name);
SELECT coalesce(string_agg(concat_ws(' ', kind, (SELECT string_agg(key || '=' || coalesce(value, 'null'), ' ' ORDER BY key)
	FROM jsonb_each_text(details) WHERE key NOT IN ('settlement_id', 'error'))), '; '), '')
FROM settlement.discrepancies WHERE trade_id = '$trade'
SQL
}

# Booked as enqueued: 100 x 2 and the fee of the buyer.
sub booked_as_enqueued
{
	my ($trade) = @_;
	my %booked = map { ("$_->{account} $_->{currency}" => $_->{amount}) } $s->wallet->ledger("?trade_id=$trade");
	is($booked{'u1 USDT'}, '-200.5', "$trade is booked as it was enqueued");
	is($s->effects_of($trade), 1, 'once');
}

scenario changed_while_queued => sub {
	while_queued([ 'price', 'parties', 'nulled', 'spelt', 'same' ], <<'SQL');
UPDATE trades SET price = 101, buyer_fee = 0.1 WHERE trade_id = 'price';
UPDATE trades SET buyer_user_id = 'u7', symbol = 'ETH/USDT' WHERE trade_id = 'parties';
UPDATE trades SET quantity = NULL WHERE trade_id = 'nulled';
UPDATE trades SET price = 100.000, seller_fee = 0.2500 WHERE trade_id = 'spelt';
UPDATE trades SET executed_at = executed_at WHERE trade_id = 'same';
SQL
	for my $trade ('price', 'parties', 'nulled', 'spelt', 'same')
	{
		$s->status_is($trade, 'SETTLED');
		booked_as_enqueued($trade);
	}
	discrepancy_is('price', 'trade_changed buyer_fee=0.1 enqueued_buyer_fee=0.5 enqueued_price=100 outcome=SETTLED price=101', 'the amounts are a discrepancy');
	discrepancy_is('parties', 'trade_changed buyer_id=u7 enqueued_buyer_id=u1 enqueued_symbol=BTC/USDT outcome=SETTLED symbol=ETH/USDT', 'so are the parties');
	discrepancy_is('nulled', 'trade_changed enqueued_quantity=2 outcome=SETTLED quantity=null', 'so is a value that was taken away');
	discrepancy_is('spelt', '', 'another spelling of the same amount is not');
	discrepancy_is('same', '', 'nor is an update of something else');
};

# The user still holds the row when the outcome comes.
scenario changed_while_the_outcome_comes => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trade($_, %snapshot) for 'held', 'left';
	my $user = $s->session;
	$user->query_safe("BEGIN; UPDATE trades SET quantity = 3 WHERE trade_id = 'held'; UPDATE trades SET quantity = 3 WHERE trade_id = 'left'");
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT count(*) FROM settlement.unapplied WHERE trade_id IN ('held', 'left')", 2, 'the outcomes wait');
	$user->query_safe("COMMIT; UPDATE trades SET quantity = 2 WHERE trade_id = 'left' AND settlement_status = 'PENDING'");
	$user->quit;
	$s->settled_is($_, 1) for 'held', 'left';
	booked_as_enqueued($_) for 'held', 'left';
	discrepancy_is('held', 'trade_changed enqueued_quantity=2 outcome=SETTLED quantity=3', 'the change is a discrepancy');
};

# A trade that is retried and redriven is compared with what was first sent.
scenario changed_while_dead => sub {
	$s->faults({ match => { trade_id => 'redriven', count => 1 }, action => 'status', status => 422,
		body => { error => 'x', message => 'x', code => 'INSUFFICIENT_BALANCE' } });
	$s->trade('redriven', %snapshot);
	$s->status_is('redriven', 'FAILED');
	$s->sql("UPDATE trades SET price = 50 WHERE trade_id = 'redriven'");
	$s->sql("SELECT settlement.redrive('redriven', 'paid in')");
	$s->status_is('redriven', 'SETTLED');
	booked_as_enqueued('redriven');
	discrepancy_is('redriven', 'trade_changed enqueued_price=100 outcome=SETTLED price=50', 'the change is a discrepancy');
	$s->faults;
};

# The row is deleted and inserted again, in two transactions, while its trade
# waits to be tried again: what waits has the facts, the new one goes.
scenario enqueued_again_while_it_waits => sub {
	$s->set(retry_initial_backoff => '5s');
	$s->faults({ match => { trade_id => 'again', times => 1 }, action => 'status', status => 503 });
	my $requests = $s->requests;
	$s->trade('again', %snapshot);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = 'again'", 1, 'it waits');
	$s->sql("CREATE TABLE kept AS SELECT * FROM trades WHERE trade_id = 'again'; DELETE FROM trades WHERE trade_id = 'again'");
	my $duplicates = $s->metric('duplicates');
	$s->sql('INSERT INTO trades SELECT * FROM kept');
	$s->becomes("SELECT value - $duplicates FROM settlement.metrics WHERE name = 'duplicates'", 1, 'the second row leaves the queue');
	is($s->requests - $requests, 1, 'without a request');
	$s->status_is('again', 'SETTLED');
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'again'"), 2, 'by the second attempt of the first one');
	booked_as_enqueued('again');
	discrepancy_is('again', '', 'nothing contradicts');
	$s->reset('retry_initial_backoff');
	$s->faults;
};

# Twice, and the row that was sent is in the queue: it goes on, since the other
# one does not know of that.
scenario enqueued_again_without_its_facts => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('facts', %snapshot);
	my $columns = $s->sql("SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'settlement.queue'::regclass AND attnum > 1");
	$s->sql(<<"SQL");
INSERT INTO settlement.deferred (retry_at, reason, $columns) SELECT 'infinity', 'needs_lookup', $columns FROM settlement.queue WHERE trade_id = 'facts';
UPDATE settlement.queue SET attempts = 1, format = 1, maybe_executed = true, first_sent_at = now() WHERE trade_id = 'facts';
SELECT settlement.resume();
SQL
	$s->status_is('facts', 'SETTLED');
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'facts'"), 2, 'by its second attempt');
	$s->sql("DELETE FROM settlement.deferred WHERE trade_id = 'facts'");
	booked_as_enqueued('facts');
};

# ---------------------------------------------------------------- the status

scenario status_changed_while_queued => sub {
	my @names = ('null', 'empty', 'failed', 'settled', 'reversed', 'own-id');
	while_queued(\@names, <<'SQL');
UPDATE trades SET settlement_status = NULL WHERE trade_id = 'null';
UPDATE trades SET settlement_status = 'CANCELLED' WHERE trade_id = 'empty';
UPDATE trades SET settlement_status = 'FAILED' WHERE trade_id = 'failed';
UPDATE trades SET settlement_status = 'SETTLED' WHERE trade_id = 'settled';
UPDATE trades SET settlement_status = 'REVERSED' WHERE trade_id = 'reversed';
UPDATE trades SET settlement_status = 'SETTLED', settlement_id = 'mine' WHERE trade_id = 'own-id';
SQL
	$s->becomes("SELECT string_agg(trade_id || ' ' || settlement_status, ', ' ORDER BY trade_id) FROM trades WHERE trade_id IN ('null', 'empty', 'failed', 'settled') AND settlement_id IS NOT NULL",
		'empty SETTLED, failed SETTLED, null SETTLED, settled SETTLED', 'what the wallet did is written, with its id');
	discrepancy_is('reversed', 'status_changed outcome=SETTLED row_settlement_id=null settlement_status=REVERSED', 'REVERSED stays, and is a discrepancy');
	discrepancy_is('own-id', 'status_changed outcome=SETTLED row_settlement_id=mine settlement_status=SETTLED', 'so is another settlement id');
	discrepancy_is($_, '', "$_: nothing contradicts") for 'null', 'empty', 'failed', 'settled';
	booked_as_enqueued($_) for @names;
	$s->at_rest;
	$s->sql(<<'SQL');
UPDATE trades t SET settlement_status = 'SETTLED', settlement_id = d.details ->> 'settlement_id'
FROM settlement.discrepancies d WHERE d.trade_id = t.trade_id AND d.kind = 'status_changed'
SQL
};

# The wallet says no, and somebody has written that it is paid.
scenario settled_by_hand_and_rejected => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('not-paid', %snapshot, buyer => 'nobody');
	$s->sql("UPDATE trades SET settlement_status = 'SETTLED' WHERE trade_id = 'not-paid'; SELECT settlement.resume()");
	discrepancy_is('not-paid', 'status_changed outcome=FAILED row_settlement_id=null settlement_status=SETTLED', 'is a discrepancy');
	$s->dead_letter_is('not-paid', 'FAILED user_not_found USER_NOT_FOUND 1');
	my ($status, undef, $err) = $s->try_sql("SELECT settlement.redrive('not-paid', 'again')");
	like($err, qr/was not redriven: its trade row says SETTLED or REVERSED/, 'what says SETTLED is not sent again');
	$s->sql("UPDATE trades SET settlement_status = 'PENDING' WHERE trade_id = 'not-paid'");
	$s->wallet->fund(qw(nobody USDT 1000));
	$s->sql("SELECT settlement.redrive('not-paid', 'again')");
	$s->status_is('not-paid', 'SETTLED');
	is($s->effects_of('not-paid'), 1, 'it is when it says PENDING');
};

# The changes of one row are the user's; the books agree with what was enqueued.
scenario the_books => sub {
	$s->at_rest;
	$s->sql("UPDATE trades SET symbol = 'BTC/USDT', buyer_user_id = 'u1', price = 100, quantity = 2, buyer_fee = 0.5 WHERE buyer_user_id <> 'nobody'");
	$s->ledgers_are_equal('the ledger equals the trades as they were enqueued');
};

# ------------------------------------------------------- locks and the like

# While outcomes wait for a table that somebody has locked, all else goes on.
scenario access_exclusive_while_outcomes_wait => sub {
	$s->sql('SET ROLE exchange; CREATE TABLE public.others (LIKE trades INCLUDING DEFAULTS INCLUDING INDEXES)');
	$s->attach('public.others');
	$s->sql("SELECT settlement.pause('test')");
	$s->trades('locked', 20);
	$s->sql("INSERT INTO others (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity) SELECT 'other-' || i, 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1 FROM generate_series(1, 20) AS i");
	my $user = $s->session;
	$user->query_safe('BEGIN; LOCK TABLE trades IN ACCESS EXCLUSIVE MODE');
	my $aborts = $s->metric('turn_aborts');
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT count(*) FROM others WHERE settlement_status = 'SETTLED'", 20, 'the other table settles');
	$s->becomes("SELECT count(*) FROM settlement.unapplied WHERE status = 'SETTLED'", 20, 'outcomes of the locked one are recorded');
	is($s->metric('turn_aborts'), $aborts, 'no turn waited for the lock until it failed');
	$user->query_safe('COMMIT');
	$user->quit;
	$s->settled_is('locked', 20);
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'locked%' AND settlement_attempts <> 1"), 0, 'by one request each');
};

# A table of our own is locked: an outcome that needs it fails outside of what an
# outcome may do wrong, and is tried again as soon as any other.
scenario our_table_is_locked_while_an_outcome_waits => sub {
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('contradiction', %snapshot);
	$s->sql("UPDATE trades SET price = 102 WHERE trade_id = 'contradiction'");
	my $user = $s->session;
	$user->query_safe('BEGIN; LOCK TABLE settlement.discrepancies IN ACCESS EXCLUSIVE MODE');
	$s->sql('SELECT settlement.resume()');
	$s->becomes(<<'SQL', 't', 'it fails, and does not wait for long');
SELECT coalesce(bool_or(failures > 0 AND last_failure ~ 'lock timeout' AND next_apply_at - last_failed_at < '10 s'), false)
FROM settlement.unapplied WHERE trade_id = 'contradiction'
SQL
	$user->query_safe('COMMIT');
	$user->quit;
	$s->status_is('contradiction', 'SETTLED');
	discrepancy_is('contradiction', 'trade_changed enqueued_price=100 outcome=SETTLED price=102', 'what differs is told');
};

# The wallet has booked a trade, and its worker is about to write that.
sub while_in_flight
{
	my ($base, $ddl) = @_;
	$hold->at('claims');
	$s->sql(<<"SQL");
INSERT INTO parts (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
VALUES ('part-$base', '$base/USDT', 'b', 's', 'u1', 'u2', 10, 1)
SQL
	$hold->reached('claims');
	$s->sql("SET ROLE exchange; $ddl");
	$hold->release('claims');
}

# In flight: the wallet has it while the table changes under it.
scenario dropped_and_renamed_while_in_flight => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
CREATE TABLE public.parts (LIKE trades INCLUDING DEFAULTS) PARTITION BY LIST (symbol);
CREATE TABLE public.parts_btc PARTITION OF parts FOR VALUES IN ('BTC/USDT');
CREATE TABLE public.parts_eth PARTITION OF parts FOR VALUES IN ('ETH/USDT');
CREATE TABLE public.parts_sol PARTITION OF parts FOR VALUES IN ('SOL/USDT');
ALTER TABLE parts ADD PRIMARY KEY (trade_id, symbol);
SQL
	$s->attach('public.parts');
	while_in_flight('BTC', 'DROP TABLE parts_btc');
	while_in_flight('ETH', 'ALTER TABLE parts DETACH PARTITION parts_eth');
	while_in_flight('SOL', <<'SQL');
ALTER TABLE parts RENAME TO shares;
ALTER TABLE shares RENAME COLUMN settlement_error TO why;
ALTER TABLE shares RENAME COLUMN price TO px;
ALTER TABLE shares DROP COLUMN settled_at;
SQL
	$s->becomes("SELECT kind FROM settlement.discrepancies WHERE trade_id = 'part-BTC'", 'trade_row_gone', 'a dropped partition: what was paid is a discrepancy');
	$s->becomes("SELECT settlement_status FROM parts_eth", 'SETTLED', 'a detached one is written');
	$s->becomes("SELECT settlement_status FROM shares", 'SETTLED', 'so is a renamed table with other columns');
	$s->at_rest;
};

# A row moves to another partition while the wallet is asked about its key, which
# it has forgotten.  What is in flight has the facts, and goes on alone: a second
# queue row would be sent as a new trade.
scenario moved_while_it_is_looked_up => sub {
	$s->sql(<<'SQL');
SET ROLE exchange;
CREATE TABLE public.moves (LIKE trades INCLUDING DEFAULTS) PARTITION BY LIST (symbol);
CREATE TABLE public.moves_btc PARTITION OF moves FOR VALUES IN ('BTC/USDT');
CREATE TABLE public.moves_eth PARTITION OF moves FOR VALUES IN ('ETH/USDT');
ALTER TABLE moves ADD PRIMARY KEY (trade_id, symbol);
SQL
	$s->attach('public.moves');
	$s->set(idempotency_window => 1, retry_initial_backoff => '1500ms', retry_max_backoff => '1500ms');
	$s->faults({ match => { trade_id => 'moving' }, action => 'close', apply => \1, forget => \1 }, { match => { path => 'lookup' }, action => 'pass', delay_ms => 2000 });
	$s->sql(<<'SQL');
INSERT INTO moves (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
VALUES ('moving', 'BTC/USDT', 'b', 's', 'u1', 'u2', 10, 1)
SQL
	$s->becomes(<<'SQL', 1, 'it moves while it is looked up');
WITH m AS (UPDATE moves SET symbol = 'ETH/USDT' WHERE trade_id = 'moving' AND EXISTS
	(SELECT FROM settlement.in_flight WHERE trade_id = 'moving' AND phase = 'waiting' AND attempt = 2) RETURNING 1)
SELECT count(*) FROM m
SQL
	$s->becomes("SELECT reason, last_class FROM settlement.deferred WHERE trade_id = 'moving' AND last_class = 'unknown_key'", 'needs_lookup|unknown_key', 'the wallet has forgotten it');
	is($s->effects_of('moving'), 1, 'it is not paid twice');
	is($s->sql("SELECT count(*) FROM settlement.queue"), 0, 'nothing else is queued');
	my ($id) = map { $_->{settlement_id} } $s->wallet->ledger('?trade_id=moving');
	$s->resolve('moving', 'SETTLED', $id, 'found in the books');
	is($s->sql("SELECT settlement_status FROM moves_eth"), 'SETTLED', 'the outcome follows the row');
	$s->faults;
	$s->reset('idempotency_window', 'retry_initial_backoff', 'retry_max_backoff');
	$s->at_rest;
};

# The trigger and what is compared later do not depend on the statement.
scenario merged => sub {
	plan skip_all => 'MERGE came with PostgreSQL 15' if $s->sql('SHOW server_version_num') < 150000;
	my $requests = $s->requests;
	while_queued([ map { ("merge-changed-$_", "merge-gone-$_") } 1 .. 5 ], <<'SQL');
MERGE INTO trades t USING (SELECT 'merge-new', 100 UNION ALL SELECT 'merge-changed-' || i, 101 FROM generate_series(1, 5) AS i
	UNION ALL SELECT 'merge-gone-' || i, 0 FROM generate_series(1, 5) AS i) AS m (id, price) ON t.trade_id = m.id
WHEN MATCHED AND m.price = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET price = m.price
WHEN NOT MATCHED AND m.price = 100 THEN INSERT (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity, buyer_fee, seller_fee)
	VALUES (m.id, 'BTC/USDT', 'b', 's', 'u1', 'u2', m.price, 2, 0.5, 0.25)
SQL
	$s->settled_is('merge-new', 1);
	$s->settled_is('merge-changed', 5);
	$s->becomes("SELECT count(*) FROM settlement.discrepancies WHERE trade_id LIKE 'merge-gone%' AND kind = 'trade_row_gone'", 5, 'rows that were deleted: what was paid is a discrepancy');
	discrepancy_is("merge-changed-$_", 'trade_changed enqueued_price=100 outcome=SETTLED price=101', 'so is what was updated, though written together with those that are gone') for 1 .. 5;
	discrepancy_is('merge-new', '', 'the one that was inserted is none');
	booked_as_enqueued($_) for 'merge-new', map { ("merge-changed-$_", "merge-gone-$_") } 1 .. 5;
	is($s->requests - $requests, 11, 'one request for each');
	$s->at_rest;
};

done_testing();
