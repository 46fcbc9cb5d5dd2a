# DROP EXTENSION loses no trade by accident.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Workers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('drop');
$node->init;
$node->append_conf('postgresql.conf', conf('settlement.enabled = off', 'settlement.max_queue_depth = 1000'));
$node->start;
my $refusal = qr/cannot drop extension "settlement" because trades are not settled/;

sub refuses
{
	my ($command, $detail, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, undef, $error) = $node->psql('postgres', $command);
	like($error, $refusal, $name);
	like($error, $detail, '... and says what is left');
}

trades_table($node, 'postgres');
workers_are($node, 'postgres', 2, 'workers run');
$node->safe_psql('postgres', 'INSERT INTO trades (id) VALUES (1), (2)');

my $queued = qr/Queued: 2, deferred: 0, not applied to the trade row: 0, dead-lettered as UNKNOWN: 0/;
refuses('DROP EXTENSION settlement CASCADE', $queued, 'queued trades refuse DROP EXTENSION');
refuses('DROP SCHEMA settlement CASCADE', $queued, '... DROP SCHEMA CASCADE');
refuses('DROP OWNED BY CURRENT_USER', $queued, '... DROP OWNED');
refuses(q{DO $$ BEGIN DROP EXTENSION settlement CASCADE; END $$}, $queued, '... a DROP inside a block');
workers_are($node, 'postgres', 2, 'the workers are back');

my $row = q{now(), 1, 'trades', 'x', 'S', 'a', 'b', 'c', 'd', 1, 1, 1, 0, 0};
my $columns = q{enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
	seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee};
$node->safe_psql('postgres', qq{DELETE FROM settlement.queue;
	INSERT INTO settlement.deferred (retry_at, reason, $columns) VALUES ('infinity', 'retry', $row)});
refuses('DROP EXTENSION settlement CASCADE', qr/deferred: 1/, 'so do deferred ones');
$node->safe_psql('postgres', qq{DELETE FROM settlement.deferred;
	INSERT INTO settlement.unapplied (next_apply_at, attached_id, leaf, trade_id, status) VALUES ('infinity', 1, 'trades', 'x', 'SETTLED')});
refuses('DROP EXTENSION settlement CASCADE', qr/not applied to the trade row: 1/, 'and outcomes that are not applied');
$node->safe_psql('postgres', qq{DELETE FROM settlement.unapplied;
	INSERT INTO settlement.dlq (status, class, $columns) VALUES ('UNKNOWN', 'timeout', $row)});
refuses('DROP EXTENSION settlement CASCADE', qr/UNKNOWN: 1/, 'and unknown ones');
$node->safe_psql('postgres', q{UPDATE settlement.dlq SET status = 'FAILED'});

$node->safe_psql('postgres', q{BEGIN; SAVEPOINT s; DROP EXTENSION settlement CASCADE; ROLLBACK TO s; COMMIT});
workers_are($node, 'postgres', 2, 'a drop that is rolled back to a savepoint leaves the workers');
my (undef, undef, $error) = $node->psql('postgres',
	q{BEGIN; DROP EXTENSION settlement CASCADE; PREPARE TRANSACTION 'drop'});
like($error, qr/cannot PREPARE a transaction that has dropped or updated the extension/, 'a drop cannot be prepared');

$node->safe_psql('postgres', 'DROP EXTENSION settlement CASCADE');
workers_are($node, 'postgres', 0, 'with FAILED ones only, the drop goes through');
is($node->safe_psql('postgres', q{SELECT count(*) FROM trades}), 2, 'and leaves the trade table');

$node->safe_psql('postgres', 'DROP TABLE trades');
trades_table($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO trades (id) VALUES (1)');
workers_are($node, 'postgres', 2, 'created again');
$node->safe_psql('postgres', 'SET settlement.force_drop = on; DROP EXTENSION settlement CASCADE');
workers_are($node, 'postgres', 0, 'settlement.force_drop discards what is queued');

$node->safe_psql('postgres', 'DROP TABLE trades');
trades_table($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO trades (id) VALUES (1)');
is($node->safe_psql('postgres', q{SELECT concat_ws(' ', queue_depth, frontier, epoch) FROM settlement._database_state()}),
	'1 0 0', 'what was known of the old queue is forgotten');
$node->safe_psql('postgres', q{SET settlement.force_drop = on; DROP EXTENSION settlement CASCADE; CREATE EXTENSION settlement});
workers_are($node, 'postgres', 2, 'created again');
my @before = workers_of($node, 'postgres');
$node->safe_psql('postgres', 'ALTER EXTENSION settlement UPDATE');
wait_until($node, sprintf(q{count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'settlement worker' AND pid NOT IN (%s)},
	join(',', @before)), 'ALTER EXTENSION UPDATE: new workers');

# The new queue's ids begin at 1 again: what was known of the old one is void.
$node->safe_psql('postgres', 'DROP TABLE trades; ALTER SYSTEM SET settlement.enabled = on');
$node->reload;
for my $round (1, 2)
{
	is($node->safe_psql('postgres', 'SELECT frontier FROM settlement._database_state()'), 0, 'a new queue');
	trades_table($node, 'postgres');
	$node->safe_psql('postgres', 'INSERT INTO trades (id) SELECT generate_series(1, 20)');
	ok($node->poll_query_until('postgres', 'SELECT count(DISTINCT trade_id) = 20 FROM settlement.attempts'),
		"installation $round: every trade is tried");
	$node->safe_psql('postgres', 'SET settlement.force_drop = on; DROP EXTENSION settlement CASCADE; DROP TABLE trades; CREATE EXTENSION settlement');
}

$node->stop;
done_testing();
