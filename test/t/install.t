#!/usr/bin/perl
# CREATE EXTENSION by a superuser, where somebody has prepared the ground.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start;
my $node = $s->node;
$s->sql('CREATE ROLE mallory');

# (exit status, stderr) of CREATE EXTENSION in a new database.
sub create_after
{
	my ($database, $preparation, $session) = @_;
	$s->sql("CREATE DATABASE $database");
	$node->safe_psql($database, $preparation);
	my ($status, undef, $err) = $node->psql($database, ($session // '') . "CREATE EXTENSION settlement;\nSELECT count(*) FROM settlement.queue", on_error_stop => 1);
	return ($status, $err);
}

scenario a_schema_of_somebody_else => sub {
	my ($status, $err) = create_after('theirs', 'CREATE SCHEMA settlement AUTHORIZATION mallory');
	isnt($status, 0, 'is refused');
	like($err, qr/schema "settlement" exists and belongs to somebody else/, 'and why');
};

scenario a_schema_with_something_in_it => sub {
	my ($status, $err) = create_after('used', 'CREATE SCHEMA settlement; CREATE FUNCTION settlement._audit(text) RETURNS void LANGUAGE sql AS $$$$');
	isnt($status, 0, 'is refused');
	like($err, qr/schema "settlement" exists and is not empty/, 'and why');
	($status, $err) = create_after('empty', 'CREATE SCHEMA settlement');
	is($status, 0, 'an empty one will do') or diag($err);
};

# What the script calls by bare names is the server's, whatever the session's path.
scenario names_on_the_path => sub {
	my ($status, $err) = create_after('path', <<'SQL', "SET search_path = trap, public;\n");
CREATE SCHEMA trap AUTHORIZATION mallory;
SET ROLE mallory;
CREATE TABLE trap.sprung (what text);
CREATE FUNCTION trap.spring(text) RETURNS void LANGUAGE sql AS 'INSERT INTO trap.sprung VALUES ($1)';
CREATE FUNCTION trap.format(text, regclass) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring('format'); RETURN 'SELECT 1'; END $$;
CREATE FUNCTION trap.equal(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring('='); RETURN true; END $$;
CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = text, FUNCTION = trap.equal);
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring('now'); RETURN pg_catalog.now(); END $$;
SQL
	is($status, 0, 'it is created') or diag($err);
	is($node->safe_psql('path', 'SELECT count(*) FROM trap.sprung'), 0, 'and calls none of them');
};

done_testing();
