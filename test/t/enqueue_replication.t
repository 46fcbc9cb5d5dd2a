# Logical replication: trades are queued where they are inserted, and only there.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %node;
for my $name (qw(publisher subscriber))
{
	my $node = $node{$name} = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 'logical');
	$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'settlement'
settlement.workers = 0
CONF
	$node->start;
	$node->safe_psql('postgres', q{
		CREATE EXTENSION settlement;
		CREATE TABLE trades (
			id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
			buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1);
		SELECT count(*) FROM settlement.attach('trades')});
}

sub queued
{
	return $node{ $_[0] }->safe_psql('postgres', q{
		SELECT (SELECT coalesce(string_agg(trade_id, ',' ORDER BY id), '-') FROM settlement.queue) || ' ' ||
			(SELECT count(*) FROM settlement.dlq)});
}

my $publisher = $node{publisher};
my $subscriber = $node{subscriber};
$publisher->safe_psql('postgres', q{
	INSERT INTO trades (id, price) VALUES (1, 1), (2, 0);
	CREATE PUBLICATION trades FOR TABLE trades});
my $from = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION trades CONNECTION '$from' PUBLICATION trades");
$subscriber->wait_for_subscription_sync($publisher, 'trades');
is(queued('publisher'), '1 1', 'the publisher has queued its trades');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM trades'), '2', 'the initial copy has arrived');
is(queued('subscriber'), '- 0', 'and is not queued');

$publisher->safe_psql('postgres', 'INSERT INTO trades (id, price) VALUES (3, 1), (4, 0)');
$publisher->wait_for_catchup('trades');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM trades'), '4', 'changes have arrived');
is(queued('subscriber'), '- 0', 'and are not queued');

$subscriber->safe_psql('postgres', 'INSERT INTO trades (id) VALUES (100)');
is(queued('subscriber'), '100 0', 'its own trades are');

$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION trades');
$_->stop for values %node;
done_testing();
