#!/usr/bin/perl
# Copies of a database by PostgreSQL's own means: nothing is sent before adopt(),
# nothing paid twice after it.  Without settlement.site_file, then with the same
# token for all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies;
use Test::More;

my $s = Settlement->start(name => 'main', streaming => 1, conf => <<'CONF');
max_connections = 30
max_worker_processes = 24
settlement.workers = 1
settlement.max_workers = 12
CONF
my $node = $s->node;
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', join "\n", "shared_preload_libraries = 'settlement'", 'settlement.workers = 1',
	'settlement.max_workers = 12', 'max_worker_processes = 24', "settlement.wallet_url = '" . $s->wallet->url . "'");
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE exchange; CREATE ROLE engine');

my $another_database = 'its data were copied from another database';
my $another_system = 'its data come from another database system';
my $restored = 'its data were restored from a dump';
my $n = 0;

sub dump_of
{
	my ($name, @options) = @_;
	my $file = $node->basedir . "/$name$n.dump";
	$node->command_ok([ 'pg_dump', '-f', $file, @options, '-d', $node->connstr('postgres') ], "$name dump");
	return $file;
}

# psql or pg_restore; a plain dump has no pg_restore.
sub restore
{
	my ($into, $database, $file, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$into->command_ok(@options
		? [ 'pg_restore', '-e', @options, '-d', $into->connstr($database), $file ]
		: [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $into->connstr($database) ],
		join ' ', 'restore', grep { /^--/ } @options);
}

# A database that has been dealt with needs no worker any more.
sub drop { my ($in, $database) = @_; $in->safe_psql('postgres', "DROP DATABASE $database") }

# $over brings the files back over the original.
sub copies
{
	my ($over) = @_;
	my ($plain, $custom);
	my $backlog = backlog($s, sub {
		$plain = dump_of('plain');
		$custom = dump_of('custom', '-Fc');
		$node->safe_psql('template1', "CREATE DATABASE cloned$n TEMPLATE postgres");
	});

	scenario create_database_template => sub {
		is_fenced($s, $node, "cloned$n", $backlog, $another_database);
		adopted($s, $node, "cloned$n", $backlog);
		drop($node, "cloned$n");
	};

	scenario a_plain_dump_in_the_same_cluster => sub {
		$node->safe_psql('postgres', "CREATE DATABASE plain$n");
		restore($node, "plain$n", $plain);
		is_fenced($s, $node, "plain$n", $backlog, $another_database);
		adopted($s, $node, "plain$n", $backlog);
		drop($node, "plain$n");
	};

	scenario a_custom_dump_in_another_cluster => sub {
		$other->safe_psql('postgres', "CREATE DATABASE custom$n");
		restore($other, "custom$n", $custom, "--section=$_") for qw(pre-data data post-data);
		is_fenced($s, $other, "custom$n", $backlog, $another_system);
		adopted($s, $other, "custom$n", $backlog);
		drop($other, "custom$n");
	};

	# Same cluster, same database, same place: only the row was not written here.
	scenario a_dump_restored_over_the_original => sub {
		my $asked = asked($s);
		$over->($custom);
		is(asked($s), $asked, 'the wallet is asked nothing meanwhile');
		is_fenced($s, $node, 'postgres', $backlog, $restored);
		adopted($s, $node, 'postgres', $backlog);
		$node->safe_psql('postgres', "DELETE FROM settlement.audit_log; UPDATE settlement.identity SET epoch = 1, written_by = settlement._writer()");
	};
	return;
}

copies(sub {
	local $ENV{PGOPTIONS} = '-c settlement.force_drop=on';
	restore($node, 'postgres', $_[0], '--clean', '--if-exists');
});
$n++;

my $site = $node->basedir . '/site';
PostgreSQL::Test::Utils::append_to_file($site, "token of this exchange\n");
for ($node, $other)
{
	$_->append_conf('postgresql.conf', "settlement.site_file = '$site'");
	$_->restart;
}
$s->becomes("SELECT state || ' ' || left(place, 5) FROM settlement.status, settlement.identity", 'ok site:', 'settlement.site_file is set');

copies(sub {
	$node->safe_psql('postgres', q{
		DO $$
		BEGIN
			EXECUTE (SELECT 'TRUNCATE trades, witness.ledger, witness.balances, ' || string_agg(c.oid::regclass::text, ', ')
				FROM pg_class c WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind = 'r');
		END $$});
	restore($node, 'postgres', $_[0], '--data-only', '--disable-triggers');
});

# What a dump of the data alone brings, when the trigger is there already.
scenario data_restored_with_triggers => sub {
	my $schema = dump_of('schema', '--schema-only');
	my $data = dump_of('data', '--data-only', '-Fc');
	my $asked = asked($s);
	$other->safe_psql('postgres', 'CREATE DATABASE alone');
	restore($other, 'alone', $schema);
	$other->command_fails_like([ 'pg_restore', '-e', '-d', $other->connstr('alone'), $data ], qr/is not attached to settlement|already exists|duplicate key/,
		'it fails');
	ok($other->poll_query_until('alone', 'SELECT state FROM settlement.status', 'fenced'), 'it is fenced');
	is(asked($s), $asked, 'and the wallet asked nothing');
};

# The queue is forgotten, and the table attached anew: the keys are the same.
scenario the_extension_created_anew => sub {
	my $dump;
	my $backlog = backlog($s, sub { $dump = dump_of('anew', '-Fc') });
	my $before = $s->wallet->stats;
	$other->safe_psql('postgres', 'CREATE DATABASE anew');
	restore($other, 'anew', $dump, '--no-comments');
	$other->safe_psql('anew', q{
		SET settlement.force_drop = on;
		DROP EXTENSION settlement CASCADE;
		CREATE EXTENSION settlement;
		SELECT settlement.attach('trades');
		SELECT settlement.enqueue_pending('trades', dry_run => false)});
	ok($other->poll_query_until('anew', "SELECT count(*) FROM trades WHERE trade_id LIKE '$backlog-%' AND settlement_status = 'SETTLED'", 8),
		'what enqueue_pending() finds settles');
	my $after = $s->wallet->stats;
	is($after->{requests}{settle} - $before->{requests}{settle}, 0, 'nothing is sent again');
	is($after->{requests}{lookup} - $before->{requests}{lookup}, 8, 'each was looked up');
	Copies::books_agree($s, $other, 'anew');
};

done_testing();
