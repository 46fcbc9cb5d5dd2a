#!/usr/bin/perl
# Logical replication of trades: they are queued and paid where they are inserted,
# and only there.  Both sides are at work and share a wallet, and the same name of
# the table, and so the same keys.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies qw(asked books_agree);
use Test::More;

my $s = Settlement->start(name => 'publisher', streaming => 1, conf => "max_connections = 30\nwal_level = logical");
my $publisher = $s->node;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf', join "\n", "shared_preload_libraries = 'settlement'", 'max_worker_processes = 16',
	"settlement.wallet_url = '" . $s->wallet->url . "'");
$subscriber->start;

sub there { my ($sql) = @_; return $subscriber->safe_psql('postgres', $sql) }

sub there_becomes
{
	my ($sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($subscriber->poll_query_until('postgres', $sql, $expected), $name);
}

# What the subscriber's own workers would pay, or have paid.
sub nothing_there
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(there('SELECT (SELECT count(*) FROM settlement.queue), (SELECT count(*) FROM settlement.claims), (SELECT count(*) FROM settlement.deferred), (SELECT count(*) FROM settlement.dlq)'),
		'0|0|0|0', $name);
}

there('CREATE ROLE exchange; CREATE ROLE engine');
$subscriber->command_ok([ 'sh', '-c', "pg_dump --schema-only -d '" . $publisher->connstr('postgres') . "' | psql -X -q -v ON_ERROR_STOP=1 -d '" . $subscriber->connstr('postgres') . "'" ], 'the schema');
there("DROP TRIGGER settlement_enqueue ON trades; SELECT settlement.attach('trades')");
there_becomes('SELECT state FROM settlement.status', 'ok', 'the subscriber may send');

scenario the_initial_copy => sub {
	$s->trades('early', 5);
	$s->trade('early-bad', price => 0);
	$s->settled_is('early', 5);
	$s->status_is('early-bad', 'FAILED');
	$s->sql("SELECT settlement.pause('so that some are PENDING')");
	$s->trades('pending', 5);
	$s->sql('CREATE PUBLICATION trades FOR TABLE trades');
	my $asked = asked($s);
	there("CREATE SUBSCRIPTION trades CONNECTION '" . $publisher->connstr . " dbname=postgres' PUBLICATION trades");
	$subscriber->wait_for_subscription_sync($publisher, 'trades');
	is(there('SELECT count(*), count(*) FILTER (WHERE settlement_status = $$PENDING$$) FROM trades'), '11|5', 'it arrives');
	there('SELECT settlement.rescan()');
	nothing_there('and is not queued');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('pending', 5, 'the publisher settles its own');
	there_becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'pending%' AND settlement_status = 'SETTLED'", 5, 'and the outcomes arrive');
	my ($before) = split / /, $asked;
	is(asked($s), join(' ', $before + 5, (split / /, $asked)[1]), 'each by one request');
};

scenario changes => sub {
	my $requests = $s->requests;
	$s->trades('later', 5);
	$s->trade('later-bad', price => 0);
	$s->settled_is('later', 5);
	there_becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'later%' AND settlement_status IN ('SETTLED', 'FAILED')", 6, 'they arrive with their outcomes');
	nothing_there('and are not queued');
	is($s->requests - $requests, 5, 'one request for each');
	$s->at_rest(2);
	$s->ledgers_are_equal('nothing but what the publisher has settled is in the ledger');
};

scenario trades_of_the_subscriber => sub {
	my $effects = $s->effects;
	there("SELECT put('own', 3)");
	there_becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'own%' AND settlement_status = 'SETTLED'", 3, 'settle there');
	is($s->effects - $effects, 3, 'one effect of each');
	nothing_there('nothing is left over');
	books_agree($s, $publisher, 'postgres');
	books_agree($s, $subscriber, 'postgres');
};

there('DROP SUBSCRIPTION trades');
$_->stop for $subscriber, $publisher;
done_testing();
