# Requests are UTF-8.  A SQL_ASCII database lets any bytes in: those that are not
# UTF-8 make a trade invalid, and do not fail the INSERT.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('encoding');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'settlement'
settlement.workers = 0
CONF
$node->start;

my $setup = q{
	CREATE EXTENSION settlement;
	CREATE TABLE trades (
		id text PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
		buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1,
		trace_id text);
	SELECT count(*) FROM settlement.attach('trades')};

$node->safe_psql('postgres', q{CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('bytes', $setup);
$node->safe_psql('bytes', q{
	INSERT INTO trades (id, buyer_id) VALUES ('1', E'Zo\xc3\xab'), ('2', E'Zo\xeb'), (E'3\xff', 'a');
	INSERT INTO trades (id, trace_id) VALUES ('4', E'\xc3')});
is($node->safe_psql('bytes', q{SELECT trade_id, encode(buyer_id::bytea, 'hex'), trace_id FROM settlement.queue ORDER BY id}),
	"1|5a6fc3ab|\n4|61|", 'UTF-8 is queued, and a bad trace id left out');
is( $node->safe_psql('bytes', q{SELECT trade_id, row_key, message, trade_tid FROM settlement.dlq ORDER BY id}),
	"2||buyer_id is longer than 255 bytes or not valid UTF-8|(0,2)\n||trade_id is longer than 255 bytes or not valid UTF-8|(0,3)",
	'what is not is dead-lettered');

$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', $setup);
$node->safe_psql('latin', q{INSERT INTO trades (id, buyer_id) VALUES ('1', 'Zo' || chr(235))});
is($node->safe_psql('latin', q{SELECT trade_id, encode(buyer_id::bytea, 'hex') FROM settlement.queue}),
	'1|5a6feb', 'other encodings are converted when the request is made');

$node->stop;
done_testing();
