# Prepared transactions enqueue when they are committed, crash or not.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('prepared');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'settlement'
settlement.workers = 0
max_prepared_transactions = 5
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub places
{
	return sql(q{SELECT (SELECT coalesce(string_agg(trade_id, ',' ORDER BY id), '-') FROM settlement.queue) || ' ' ||
		(SELECT coalesce(string_agg(trade_id, ',' ORDER BY id), '-') FROM settlement.dlq) || ' ' ||
		(SELECT coalesce(string_agg(trade_id, ',' ORDER BY id), '-') FROM settlement.unapplied)});
}

sql(q{
	CREATE EXTENSION settlement;
	CREATE TABLE trades (
		id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
		buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1);
	SELECT count(*) FROM settlement.attach('trades');
});

sql(q{BEGIN; INSERT INTO trades (id, price) VALUES (1, 1), (2, 0); PREPARE TRANSACTION 'commit'});
sql(q{BEGIN; INSERT INTO trades (id, price) VALUES (3, 1), (4, 0); PREPARE TRANSACTION 'rollback'});
sql(q{BEGIN; SAVEPOINT s; INSERT INTO trades (id) VALUES (5); ROLLBACK TO s; INSERT INTO trades (id) VALUES (6); PREPARE TRANSACTION 'crash'});
is(places(), '- - -', 'nothing is visible before');
sql(q{INSERT INTO trades (id) VALUES (7)});
sql(q{COMMIT PREPARED 'commit'; ROLLBACK PREPARED 'rollback'});
is(places(), '1,7 2 2', 'committed: queued and dead-lettered; rolled back: neither');

$node->stop('immediate');
$node->start;
is(places(), '1,7 2 2', 'after a crash, the same');
sql(q{COMMIT PREPARED 'crash'});
is(places(), '1,6,7 2 2', 'a transaction that was prepared before a crash is queued at its commit');

# The session that prepares goes on with other work, which is its own.
sql(q{
	BEGIN; INSERT INTO trades (id) VALUES (10); PREPARE TRANSACTION 'own';
	INSERT INTO trades (id) VALUES (11);
	ROLLBACK PREPARED 'own';
	INSERT INTO trades (id) VALUES (12)});
is(places(), '1,6,7,11,12 2 2', 'a session that prepared goes on');

$node->stop;
done_testing();
