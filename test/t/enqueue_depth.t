# settlement.max_queue_depth: above it a new trade is dead-lettered as queue_full.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('depth');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'settlement'
settlement.workers = 0
max_prepared_transactions = 5
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub counts
{
	return sql(q{SELECT (SELECT count(*) FROM settlement.queue) || ' ' ||
		(SELECT count(*) FROM settlement.dlq WHERE class = 'queue_full')});
}

# Empty tables and a depth that has to be counted anew.
sub start_over
{
	my ($depth) = @_;
	sql('DELETE FROM settlement.queue; DELETE FROM settlement.dlq; DELETE FROM settlement.unapplied; TRUNCATE trades');
	$node->append_conf('postgresql.conf', "settlement.max_queue_depth = $depth");
	$node->restart;
	return;
}

sql(q{
	CREATE EXTENSION settlement;
	CREATE ROLE owner;
	CREATE SEQUENCE ids;
	CREATE TABLE trades (
		id bigint PRIMARY KEY DEFAULT nextval('ids'), symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
		buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1);
	ALTER TABLE trades OWNER TO owner;
	SELECT count(*) FROM settlement.attach('trades');
});

start_over(1000);
sql('INSERT INTO trades SELECT FROM generate_series(1, 1001)');
is(counts(), '1000 1', 'of 1001 trades at depth 1000, one is dead-lettered');
is( sql(q{SELECT d.status, d.message, d.maybe_executed, d.quote_amount, u.status, u.error = d.message
	FROM settlement.dlq d JOIN settlement.unapplied u USING (attached_id, trade_id)}),
	'FAILED|the queue holds 1000 trades (settlement.max_queue_depth)|f|1|FAILED|t',
	'with all its facts, and its row is to become FAILED');
sql('INSERT INTO trades SELECT FROM generate_series(1, 3)');
is(counts(), '1000 4', 'later transactions see a full queue');
$node->restart;
sql('INSERT INTO trades DEFAULT VALUES');
is(counts(), '1000 5', 'the queue is counted after a restart');

start_over(10);
sql(q{
	BEGIN;
	INSERT INTO trades SELECT FROM generate_series(1, 8);
	SAVEPOINT a;
	INSERT INTO trades SELECT FROM generate_series(1, 2);
	ROLLBACK TO a;
	SAVEPOINT b;
	SAVEPOINT c;
	INSERT INTO trades DEFAULT VALUES;
	RELEASE c;
	ROLLBACK TO b;
	SAVEPOINT d;
	SAVEPOINT e;
	INSERT INTO trades DEFAULT VALUES;
	RELEASE e;
	RELEASE d;
	INSERT INTO trades SELECT FROM generate_series(1, 3);
	COMMIT});
is(counts(), '10 2', 'rolled back savepoints do not count, released ones do');

start_over(10);
sql('BEGIN; INSERT INTO trades SELECT FROM generate_series(1, 10); ROLLBACK');
sql('INSERT INTO trades SELECT FROM generate_series(1, 11)');
is(counts(), '10 1', 'a rolled back transaction does not count');

start_over(10);
sql('INSERT INTO trades SELECT FROM generate_series(1, 4)');
sql(q{BEGIN; INSERT INTO trades SELECT FROM generate_series(1, 5); PREPARE TRANSACTION 'five'});
sql(q{COMMIT PREPARED 'five'});
sql('INSERT INTO trades SELECT FROM generate_series(1, 3)');
is(counts(), '10 2', 'a prepared transaction counts');
is(sql('SELECT settlement._queue_depth()'), 10, 'and nobody has to count the queue for it');

start_over(10);
sql('INSERT INTO trades DEFAULT VALUES');
sql(q{BEGIN; INSERT INTO trades SELECT FROM generate_series(1, 9); PREPARE TRANSACTION 'nine'});
sql(q{ROLLBACK PREPARED 'nine'});
sql('ALTER DATABASE postgres SET settlement.workers = 0');	# has it looked at, as each minute
ok($node->poll_query_until('postgres', 'SELECT settlement._queue_depth() = 1'), 'one that is rolled back does not');
sql('INSERT INTO trades SELECT FROM generate_series(1, 10)');
is(counts(), '10 1', 'then there is room again');

start_over(100);
# the first count of the queue may take a session that is just committing twice
sql('INSERT INTO trades DEFAULT VALUES');
$node->pgbench('-n -c 8 -j 2 -t 50', 0, [qr{processed: 400/400}], [qr{^$}], 'eight sessions',
	{ 'depth.sql' => 'INSERT INTO trades DEFAULT VALUES;' });
my ($queued, $full) = split / /, counts();
is($queued + $full, 401, 'no trade is lost');
ok($queued >= 100 && $queued <= 108, "at most one too many per session ($queued)");

start_over(0);
sql('INSERT INTO trades SELECT FROM generate_series(1, 2000)');
is(counts(), '2000 0', '0 is no limit');

$node->stop;
done_testing();
