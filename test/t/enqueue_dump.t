# Dump and restore: nothing is queued by the restore, and what was in the queue
# and the DLQ is there again.  Without shared_preload_libraries, too.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'settlement'
settlement.workers = 0
CONF
$node->start;

my $state = q{
	SELECT 'queue', q.id, q.attached_id, q.leaf::text, q.trade_id, q.row_key::text, q.quote_amount FROM settlement.queue q
	UNION ALL SELECT 'dlq', d.id, d.attached_id, d.leaf::text, d.trade_id, d.row_key::text, d.quote_amount FROM settlement.dlq d
	UNION ALL SELECT 'unapplied', u.id, u.attached_id, u.leaf::text, u.trade_id, u.row_key::text, NULL FROM settlement.unapplied u
	UNION ALL SELECT 'attached', a.attached_id, NULL, a.relid::text, a.source, a.key_columns::text, NULL FROM settlement.attached a
	UNION ALL SELECT 'trades', t.id, NULL, t.tableoid::regclass::text, t.settlement_status, NULL, NULL FROM public.trades t
	UNION ALL SELECT 'fills', NULL, NULL, NULL, f."Fill", f.settlement_status, NULL FROM "Mixed Case"."Fills" f
	ORDER BY 1, 2, 5};

$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', q{
	CREATE EXTENSION settlement;
	CREATE TABLE trades (
		id bigint, day date, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
		buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1,
		PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
	CREATE TABLE trades_1 PARTITION OF trades FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
	CREATE TABLE trades_2 PARTITION OF trades FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
	INSERT INTO trades (id, day) VALUES (1, '2024-01-01');
	SELECT count(*) FROM settlement.attach('trades');
	CREATE SCHEMA "Mixed Case";
	CREATE TABLE "Mixed Case"."Fills" ("Fill" text PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
		buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1);
	SELECT count(*) FROM settlement.attach('"Mixed Case"."Fills"', '{"trade_id": "Fill"}', source => 'fills of node 1');
	INSERT INTO trades (id, day, price) VALUES (2, '2024-01-02', 3), (3, '2025-01-02', 4), (4, '2025-01-03', 0);
	INSERT INTO "Mixed Case"."Fills" ("Fill") VALUES ('f1'), ('');
	UPDATE trades SET settlement_status = 'SETTLED' WHERE id = 3;
	DELETE FROM settlement.queue WHERE trade_id = '3'});
my $before = $node->safe_psql('original', $state);
like($before, qr/^queue\|\d+\|\d+\|trades_1\|2\|\{2,2024-01-02\}\|3$/m, 'a trade is queued');
like($before, qr/^dlq\|\d+\|\d+\|trades_2\|4\|/m, 'another is dead-lettered');

my $path = PostgreSQL::Test::Utils::tempdir;
for my $format (qw(plain custom))
{
	my $database = "restored_$format";
	my $file = "$path/$format.dump";
	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, '-d', $node->connstr('original') ], "$format dump");
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok($format eq 'plain'
		? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr($database) ]
		: [ 'pg_restore', '-e', '-j', '2', '-d', $node->connstr($database), $file ], "$format restore");
	is($node->safe_psql($database, $state), $before, "$format: all is as it was");
	$node->safe_psql($database, q{
		INSERT INTO trades (id, day) VALUES (5, '2025-01-04');
		INSERT INTO "Mixed Case"."Fills" ("Fill") VALUES ('f2')});
	is($node->safe_psql($database, q{SELECT string_agg(trade_id, ',' ORDER BY id) FROM settlement.queue}),
		'2,f1,5,f2', "$format: new trades are queued behind the old ones");
	is($node->safe_psql($database, q{SELECT settlement.enqueue_pending('trades') || ' ' || settlement.enqueue_pending('"Mixed Case"."Fills"')}),
		'0 0', "$format: nothing is pending and queued nowhere");
}

# Data alone, into a database where the trigger is: a normal trigger fires
# unless the restore disables it.
$node->command_ok([ 'pg_dump', '--data-only', '--disable-triggers', '-t', 'trades*', '-f', "$path/data.sql", '-d', $node->connstr('original') ], 'dump of data');
$node->safe_psql('restored_plain', 'TRUNCATE trades; DELETE FROM settlement.queue; DELETE FROM settlement.dlq; DELETE FROM settlement.unapplied');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$path/data.sql", '-d', $node->connstr('restored_plain') ], 'restore of data');
is($node->safe_psql('restored_plain', q{SELECT (SELECT count(*) FROM trades) || ' ' || (SELECT count(*) FROM settlement.queue) || ' ' || (SELECT count(*) FROM settlement.dlq)}),
	'4 0 0', 'nothing is queued by it');
is($node->safe_psql('restored_plain', q{SELECT settlement.enqueue_pending('trades')}), '2', 'enqueue_pending finds its trades');

# Not preloaded: trades are queued all the same, and attach says what is missing.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
$node->safe_psql('original', q{
	INSERT INTO trades (id, day) VALUES (20, '2024-01-20');
	BEGIN; SAVEPOINT a; INSERT INTO trades (id, day, price) VALUES (21, '2024-01-20', 0); RELEASE a; COMMIT});
is($node->safe_psql('original', q{SELECT (SELECT count(*) FROM settlement.queue WHERE trade_id = '20') || ' ' || (SELECT count(*) FROM settlement.dlq WHERE trade_id = '21')}),
	'1 1', 'without preload, trades are queued and dead-lettered');
my ($rc, $out, $err) = $node->psql('original', q{SELECT settlement.detach('trades'); SELECT count(*) FROM settlement.attach('trades')});
is($rc, 0, 'and tables attached');
like($err, qr/WARNING:  settlement is not in shared_preload_libraries/, 'with a warning');

$node->stop;
done_testing();
