#!/usr/bin/perl
# The package is upgraded, and rolled back, under load: as docs/operations.md says.
# Between the restart and ALTER EXTENSION trades are queued and not sent; none is
# lost, none paid twice.  The next version is this one under another number, with a
# column more in the tables that INSERT writes to.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Cwd qw(abs_path);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path("$FindBin::Bin/../..");
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my ($this) = slurp_file("$root/Makefile") =~ /^EXTVERSION = (\S+)$/m;
my $next = "$this.next";
my $new_columns = join '', map { "ALTER TABLE settlement.$_ ADD COLUMN later text;\n" } qw(queue deferred dlq unapplied);
my $old_columns = join '', map { "ALTER TABLE settlement.$_ DROP COLUMN later;\n" } qw(queue deferred dlq unapplied);

sub write_file { my ($path, $text) = @_; unlink $path; append_to_file($path, $text) }
sub edit
{
	my ($path, $from, $to) = @_;
	my $text = slurp_file($path);
	$text =~ s/$from/$to/ or die "$path: nothing to edit";
	write_file($path, $text);
}

# What a script prints, which has the functions of common.sh.
sub shell
{
	my ($script, @arguments) = @_;
	my ($out, $err);
	IPC::Run::run([ 'bash', '-euc', ". $root/scripts/lib/common.sh\n$script", 'upgrade', @arguments ], '>', \$out, '2>', \$err)
		or die "$script: $err";
	chomp $out;
	return $out;
}

# A PostgreSQL of our own, in which packages come and go; the sources of both.
my $pg_config = shell('copy_postgres "$1" "$(command -v pg_config)"', "$dir/pg");
my $flags = "-s -j2 PG_CONFIG=$pg_config with_llvm=no";
shell('copy_sources "$1"; cp -a "$1" "$2"', "$dir/this", "$dir/next");
edit("$dir/next/Makefile", qr/^EXTVERSION = .*$/m, "EXTVERSION = $next");
edit("$dir/next/settlement.control", qr/^default_version = .*$/m, "default_version = '$next'");
edit("$dir/next/src/shared/shmem.h", qr/^#define SETTLEMENT_VERSION\t"[^"]*"/m, qq(#define SETTLEMENT_VERSION\t"$next"));
shell("make -C '$dir/$_' $flags") for qw(this next);

sub install
{
	my ($which) = @_;
	my $extensions = shell('"$1" --sharedir', $pg_config) . '/extension';
	shell("rm -f '$extensions'/settlement*; make -C '$dir/$which' $flags install");
	return if $which eq 'this';
	write_file("$extensions/settlement--$this--$next.sql", $new_columns);
	write_file("$extensions/settlement--$next--$this.sql", $old_columns);
}

install('this');
(my $bin = $pg_config) =~ s{/pg_config$}{};
$ENV{PATH} = "$bin:$ENV{PATH}";
my $s = Settlement->start(conf => "settlement.poll_interval = '200ms'");
my $node = $s->node;

# A trade each hundredth of a second or so, as far as there is a server.
my $stop = "$dir/stop";
write_file("$dir/load", <<'SH');
i=0
while [ ! -e "$1" ]; do
	i=$((i + 1))
	psql -X -q -U engine -d "$2" -c "SELECT public.put('load-$i')" >/dev/null 2>"$3" || sleep 0.05
done
SH
my $load = IPC::Run::start([ 'timeout', 600, 'bash', "$dir/load", $stop, $node->connstr('postgres'), "$dir/load.err" ]);

sub settled { return $s->sql("SELECT count(*) FROM trades WHERE settlement_status = 'SETTLED'") }
sub goes_on
{
	my ($name) = @_;
	my $n = settled();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->becomes("SELECT count(*) > $n + 20 FROM trades WHERE settlement_status = 'SETTLED'", 't', $name);
}

# Trades come in, of all kinds, and none leaves.
my $n_malformed = 0;
sub only_queues
{
	my ($library, $objects) = @_;
	my $malformed = 'malformed-' . ++$n_malformed;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->becomes('SELECT state FROM settlement.status', 'version mismatch', 'status says so');
	is($s->sql("SELECT status, detail FROM settlement.doctor() WHERE component = 'version'"),
		"fail|the library is version $library, the SQL objects are version $objects: nothing is sent", 'doctor() says which');
	like($s->sql("SELECT hint FROM settlement.doctor() WHERE component = 'version'"), qr/^ALTER EXTENSION settlement UPDATE, or restart/, 'and what to do');
	$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'what was in flight has ended');
	my ($requests, $queued) = ($s->requests, $s->sql('SELECT count(*) FROM settlement.queue'));
	$s->trade($malformed, quantity => 0);
	$s->becomes("SELECT count(*) > $queued + 20 FROM settlement.queue", 't', 'trades are queued');
	is($s->requests, $requests, 'none is sent');
	is($s->sql("SELECT class FROM settlement.dlq WHERE trade_id = '$malformed'"), 'invalid_trade', 'what cannot be sent is set aside');
}

sub update_to
{
	my ($version) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->sql("SET lock_timeout = '20s'; ALTER EXTENSION settlement UPDATE TO '$version'");
	is($s->sql("SELECT extversion FROM pg_extension WHERE extname = 'settlement'"), $version, "the SQL objects are version $version");
}

scenario upgrade_under_load => sub {
	goes_on('trades settle');
	install('next');
	goes_on('the new package does nothing to the server that runs');
	$node->restart;
	only_queues($next, $this);
	update_to($next);
	goes_on('after ALTER EXTENSION they are sent');
	$s->becomes('SELECT state FROM settlement.status', 'ok', 'all is well');
};

scenario roll_back_under_load => sub {
	update_to($this);
	only_queues($next, $this);
	install('this');
	$node->restart;
	goes_on('with the former package they are sent');
	$s->becomes('SELECT state FROM settlement.status', 'ok', 'all is well');
};

# The SQL objects were not touched yet: the former package is all it takes.
scenario roll_back_before_the_update => sub {
	install('next');
	$node->restart;
	$s->becomes('SELECT state FROM settlement.status', 'version mismatch', 'the package is new, the SQL objects are not');
	install('this');
	$node->restart;
	goes_on('with the former package they are sent');
};

# Before the restart the library in memory is the former one.
scenario the_update_comes_too_early => sub {
	install('next');
	update_to($next);
	only_queues($this, $next);
	$node->restart;
	goes_on('after the restart they are sent');
};

append_to_file($stop, '');
$load->finish;
$s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'all have an end');
is($s->sql("SELECT count(*) FROM trades WHERE settlement_status <> 'SETTLED' AND trade_id NOT LIKE 'malformed%'"), 0, 'each of ' . settled() . ' is settled');
$s->sql("SELECT * FROM settlement.dlq_purge(class => 'invalid_trade', dry_run => false, reason => 'malformed')");
$s->at_rest;
$s->ledgers_are_equal;
done_testing();
