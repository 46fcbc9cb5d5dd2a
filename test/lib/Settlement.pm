package Settlement;

# A cluster with the library preloaded, a wallet beside it, and the questions
# that scenario tests ask of both.
#
#   my $s = Settlement->start(conf => 'settlement.workers = 4');
#   scenario happy_path => sub {
#       $s->trades('happy', 10);
#       $s->settled_is('happy', 10);
#       $s->ledgers_are_equal;
#   };
#   done_testing();
#
# Everything waits for a condition with a deadline.  The wallet's own ledger is
# the witness: it is read over HTTP and compared in SQL with the trade table.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);

BEGIN
{
	# PostgreSQL::Test::Utils wants them; a test can also be run by hand.
	$ENV{TESTDIR} //= abs_path(dirname(__FILE__) . '/..');
	$ENV{TESTDATADIR} //= "$ENV{TESTDIR}/tmp_check";
	$ENV{TESTLOGDIR} //= "$ENV{TESTDIR}/tmp_check/log";
}
use lib dirname(__FILE__) . '/../wallet/lib';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Proxy;
use Test::More;
use Time::HiRes qw(time sleep);
use Walletd;
use Witness;

use Exporter qw(import);
our @EXPORT = qw(scenario wait_for);

my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 60;
my $n_users = 20;
my $instances = 0;
my $current;

# A subtest that does not take the others along when it dies.
sub scenario
{
	my ($name, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $name => sub {
		eval { $code->(); 1 } or do { fail('it runs to its end'); diag($@ =~ /\A(.{0,1500})/s) };
		if (!Test::More->builder->is_passing && $current)
		{
			eval { $current->explain_state; 1 } or diag("no state: $@");
		}
	};
}

# Start a wallet and a cluster with a trade table attached.  Options: name,
# conf (lines of postgresql.conf), wallet (options of walletd), streaming
# (allow standbys), proxy (a seed: put a proxy before the wallet), data (a directory
# of its own for the server's data).
sub start
{
	my ($class, %options) = @_;
	my $name = $options{name} // 'main' . ++$instances;
	my $self = bless { n_ledger => 0 }, $class;

	# A port that no client of the machine draws, since the wallet comes back on it.
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	$self->{wallet} = Walletd->start(db => 'file', listen => "127.0.0.1:$port",
		args => [ '--sync', 'off', @{ $options{wallet} // [] } ]);
	$self->{proxy} = Proxy->start(upstream => "127.0.0.1:$port", seed => $options{proxy},
		port => PostgreSQL::Test::Cluster::get_free_port()) if defined $options{proxy};
	$self->{node} = PostgreSQL::Test::Cluster->new($name);
	if ($options{data})
	{
		mkdir "$options{data}/pgdata" or die "$options{data}/pgdata: $!";
		symlink "$options{data}/pgdata", $self->{node}->data_dir or die $!;
	}
	$self->{node}->init($options{streaming} ? (allows_streaming => 1) : ());
	$self->{node}->append_conf('postgresql.conf', join "\n",
		'log_statement = none',
		"shared_preload_libraries = 'settlement'",
		"settlement.wallet_url = '" . ($self->{proxy} // $self->{wallet})->url . "'",
		'max_connections = 60', 'shared_buffers = 64MB', 'max_prepared_transactions = 10',
		'max_worker_processes = 16', 'restart_after_crash = on',
		$options{conf} // '');
	$self->{node}->start;
	$self->create_schema;
	$self->fund_users;
	$self->attach('public.trades');
	$self->witness_trades('SELECT * FROM public.trades');
	return $current = $self;
}

sub node { $_[0]{node} }
sub wallet { $_[0]{wallet} }
sub proxy { $_[0]{proxy} }

# ---------------------------------------------------------------- SQL

sub sql
{
	my ($self, $sql, %params) = @_;
	return $self->node->safe_psql('postgres', $sql, %params);
}

# (exit status, stdout, stderr).  psql that finds no server may be gone before its
# input is written to it: IPC::Run dies of that, and for us it is no connection.
sub try_sql
{
	my ($self, $sql, %params) = @_;
	my @result = eval { $self->node->psql('postgres', $sql, %params) };
	return @result if !$@;
	die $@ if $@ !~ /Broken pipe/;
	return (2, '', $@);
}

# SQL as the matching engine, which may INSERT trades and nothing else.
sub engine
{
	my ($self, $sql) = @_;
	return $self->sql($sql, extra_params => [ '-U', 'engine' ]);
}

# The answer of a server that is down: single-user mode starts no worker.
sub sql_of_stopped
{
	my ($self, $sql, $expected, $name) = @_;
	my ($out, $err);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$sql =~ s/\n/ /g;
	IPC::Run::run([ 'postgres', '--single', '-D', $self->node->data_dir, 'postgres' ], '<', \"$sql\n", '>', \$out, '2>', \$err)
		or die "single-user mode: $err";
	is(join('|', $out =~ /= "(.*?)"/g), $expected, $name);
}

# A session that stays open.
sub session { return $_[0]->node->background_psql('postgres', on_error_die => 1) }

sub wait_for
{
	my ($condition, $what, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);
	for (;;)
	{
		my $value = eval { $condition->() };
		return $value if $value;
		last if time > $deadline;
		sleep 0.02;
	}
	die "waited in vain for $what" . ($@ ? ": $@" : '') . "\n";
}

# The query's answer becomes the expected one in time.  A failed connection, as
# during a restart, is only a reason to try again.
sub becomes
{
	my ($self, $query, $expected, $name, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);
	my ($status, $out, $err);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (;;)
	{
		($status, $out, $err) = $self->try_sql($query);
		last if ($status == 0 && $out eq $expected) || time > $deadline;
		sleep 0.02;
	}
	diag($err) if $status != 0;
	is($out, $expected, $name);
	return $out eq $expected;
}

# Change settings and let every process read them.
sub set
{
	my ($self, %settings) = @_;
	$self->sql(join '', map { "ALTER SYSTEM SET settlement.$_ = '$settings{$_}';\n" } sort keys %settings);
	$self->reload;
}

sub reset
{
	my ($self, @names) = @_;
	$self->sql(join '', map { "ALTER SYSTEM RESET settlement.$_;\n" } @names);
	$self->reload;
}

sub reload { my ($self) = @_; $self->sql('SELECT pg_reload_conf()') }

# Processes that the postmaster has started.
sub server_pids
{
	my ($self) = @_;
	my $postmaster = $self->node->{_pid};
	return split ' ', PostgreSQL::Test::Utils::slurp_file("/proc/$postmaster/task/$postmaster/children");
}

sub worker_pids
{
	my ($self) = @_;
	return split /\n/, $self->sql("SELECT pid FROM settlement.workers WHERE state = 'running' ORDER BY pid");
}

sub wait_for_workers
{
	my ($self, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$n //= $self->sql("SELECT current_setting('settlement.workers')");
	return $self->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running'", $n,
		"$n workers run");
}

# ---------------------------------------------------------------- set-up

sub create_schema
{
	my ($self) = @_;
	$self->sql(<<'SQL');
CREATE EXTENSION settlement;
CREATE ROLE exchange;
CREATE ROLE engine LOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO exchange;
SET ROLE exchange;
CREATE TABLE public.trades (
    trade_id        text PRIMARY KEY,
    symbol          text,
    buy_order_id    text,
    sell_order_id   text,
    buyer_user_id   text,
    seller_user_id  text,
    price           numeric,
    quantity        numeric,
    buyer_fee       numeric,
    seller_fee      numeric,
    executed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT INSERT ON public.trades TO engine;
RESET ROLE;

-- Trades name-from to name-upto, or the one trade `name`; all of them good,
-- between users that have enough.
CREATE FUNCTION public.put(name text, upto integer DEFAULT NULL, first integer DEFAULT 1,
                           symbol text DEFAULT NULL, buyer text DEFAULT NULL, seller text DEFAULT NULL,
                           price numeric DEFAULT NULL, quantity numeric DEFAULT NULL,
                           buyer_fee numeric DEFAULT NULL, seller_fee numeric DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.trades (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id,
                               price, quantity, buyer_fee, seller_fee)
    SELECT CASE WHEN upto IS NULL THEN name ELSE name || '-' || i END,
           coalesce(symbol, (ARRAY['BTC/USDT', 'ETH/USDT', 'SOL-USDT', 'ETH_BTC'])[1 + i % 4]),
           'bo-' || name || '-' || i, 'so-' || name || '-' || i,
           coalesce(buyer, 'u' || i % 20), coalesce(seller, 'u' || (i * 7 + 3) % 20),
           coalesce(price, 100 + (i % 97) * 0.01), coalesce(quantity, 0.001 * (1 + i % 13)),
           coalesce(buyer_fee, 0.0001 * (i % 5)), coalesce(seller_fee, 0.00005 * (i % 7))
    FROM generate_series(put.first, coalesce(upto, put.first)) AS i
$$;
SQL
}

# Rows of the witness come from this query, with the columns of public.trades.
sub witness_trades
{
	my ($self, $query) = @_;
	$self->{witness} //= Witness->new(node => $self->node, wallet => $self->wallet);
	$self->{witness}->trades($query);
}

sub fund_users
{
	my ($self) = @_;
	my @entries;
	for my $i (0 .. $n_users - 1)
	{
		push @entries, "u$i", $_, '1000000000' for qw(BTC ETH SOL USDT);
	}
	$self->wallet->fund(@entries, qw(poor USDT 0.000001));
}

sub attach
{
	my ($self, $table) = @_;
	$self->sql("SELECT settlement.attach('$table')");
}

# ---------------------------------------------------------------- trades

# n trades named name-1 ... name-n, in one transaction, as the engine.
sub trades
{
	my ($self, $name, $n, %columns) = @_;
	my $more = join '', map { ", $_ => '$columns{$_}'" } sort keys %columns;
	$self->engine("SELECT public.put('$name', $n$more)");
}

# One trade with that name; columns may be given.
sub trade
{
	my ($self, $name, %columns) = @_;
	my $more = join '', map { ", $_ => '$columns{$_}'" } sort keys %columns;
	$self->engine("SELECT public.put('$name'$more)");
}

# By hand.  What is looked up again and again is in flight now and then, and a
# person has to try once more.
sub resolve
{
	my ($self, $trade, $outcome, $reference, $reason) = @_;
	return wait_for(sub { $self->sql("SELECT settlement.resolve('$trade', '$outcome', '$reference', '$reason')") },
		"$trade to be resolved");
}

sub settled_is
{
	my ($self, $name, $n, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->becomes("SELECT count(*) FROM witness.trades WHERE trade_id LIKE '$name%' AND settlement_status = 'SETTLED'",
		$n, $what // "$n $name settle", $seconds);
}

sub status_is
{
	my ($self, $trade, $status, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->becomes("SELECT settlement_status FROM witness.trades WHERE trade_id = '$trade'",
		$status, $what // "$trade is $status", $seconds);
}

# The dead letter of a trade becomes this: "status class code attempts".
sub dead_letter_is
{
	my ($self, $trade, $expected, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->becomes("SELECT concat_ws(' ', status, class, coalesce(code, '-'), attempts) FROM settlement.dlq WHERE trade_id = '$trade'",
		$expected, $what // "$trade is dead: $expected", $seconds);
}

# Nothing is on its way any more; what is dead is counted apart.
sub at_rest
{
	my ($self, $dead, $what) = @_;
	$dead //= 0;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->becomes(<<'SQL', "queue 0 claims 0 deferred 0 unapplied 0 dlq $dead", $what // 'nothing is left over');
SELECT format('queue %s claims %s deferred %s unapplied %s dlq %s',
    (SELECT count(*) FROM settlement.queue), (SELECT count(*) FROM settlement.claims),
    (SELECT count(*) FROM settlement.deferred), (SELECT count(*) FROM settlement.unapplied),
    (SELECT count(*) FROM settlement.dlq))
SQL
}

sub metric { my ($self, $name) = @_; return $self->sql("SELECT value FROM settlement.metrics WHERE name = '$name'") }

# ---------------------------------------------------------------- wallet

sub faults { my ($self, @rules) = @_; return $self->wallet->faults(@rules) }
sub stop_wallet { $_[0]->wallet->stop }
sub start_wallet { $_[0]->wallet->launch }

# Settle requests that the wallet has seen since its start.
sub requests { return $_[0]->wallet->stats->{requests}{settle} }
sub lookups { return $_[0]->wallet->stats->{requests}{lookup} }
sub effects { return $_[0]->wallet->stats->{settle}{effects} }

# Wallet effects (distinct settlements) of one trade.
sub effects_of
{
	my ($self, $trade) = @_;
	my %ids = map { ($_->{settlement_id} => 1) } $self->wallet->ledger("?trade_id=$trade");
	return scalar keys %ids;
}

# How the wallet's ledger and the trade table differ: each settled trade should
# be in the ledger exactly once, under the settlement id on its row; nothing else
# should be; every posting right to the last digit, and so each balance.
sub ledger_differences
{
	my ($self) = @_;
	$self->{witness}{node} = $self->node;	# a test may have promoted another
	$self->{witness}->read;
	return $self->sql(<<'SQL');
CREATE TEMP TABLE expected AS SELECT * FROM witness.expected;
CREATE TEMP TABLE settled AS
SELECT trade_id, account, currency, sum(amount) AS amount
FROM witness.ledger WHERE kind = 'settlement' GROUP BY 1, 2, 3;
SELECT format('lost %s, doubled %s, unknown to the database %s, other settlement id %s, postings that differ %s, balances that differ %s',
    (SELECT count(*) FROM witness.trades t WHERE settlement_status = 'SETTLED'
        AND NOT EXISTS (SELECT FROM settled s WHERE s.trade_id = t.trade_id)),
    (SELECT count(*) FROM (SELECT FROM witness.ledger WHERE kind = 'settlement' GROUP BY trade_id
        HAVING count(DISTINCT settlement_id) > 1) d),
    (SELECT count(DISTINCT trade_id) FROM settled s WHERE NOT EXISTS (SELECT FROM expected e WHERE e.trade_id = s.trade_id)),
    (SELECT count(DISTINCT t.trade_id) FROM witness.trades t JOIN witness.ledger l USING (trade_id)
        WHERE t.settlement_status = 'SETTLED' AND t.settlement_id IS DISTINCT FROM l.settlement_id),
    (SELECT count(*) FROM settled s FULL JOIN expected e USING (trade_id, account, currency)
        WHERE coalesce(s.amount, 0) IS DISTINCT FROM coalesce(e.amount, 0)),
    (SELECT count(*) FROM (SELECT account, currency, sum(amount) AS amount FROM witness.ledger
                           WHERE kind <> 'settlement' GROUP BY 1, 2) d
        FULL JOIN (SELECT account, currency, sum(amount) AS amount FROM expected GROUP BY 1, 2) e USING (account, currency)
        FULL JOIN witness.balances b USING (account, currency)
        WHERE coalesce(b.amount, 0) <> coalesce(d.amount, 0) + coalesce(e.amount, 0)));
SQL
}

sub ledgers_are_equal
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($self->ledger_differences, 'lost 0, doubled 0, unknown to the database 0, other settlement id 0, postings that differ 0, balances that differ 0',
		$name // 'the ledgers are equal');
	my $audit = $self->wallet->audit;
	ok($audit->{ok}, "the wallet's own audit finds nothing") or diag(explain($audit));
}

# ---------------------------------------------------------------- trouble

sub explain_state
{
	my ($self) = @_;
	diag($_) for map { scalar(($self->try_sql($_))[1]) }
		"SELECT 'status ' || s::text FROM settlement.status s",
		"SELECT 'worker ' || w::text FROM settlement.workers w",
		"SELECT 'doctor ' || d::text FROM settlement.doctor() d WHERE d.status <> 'ok'",
		"SELECT 'dlq ' || concat_ws(' ', trade_id, status, class, code, http_status, message, attempts) FROM settlement.dlq LIMIT 5",
		"SELECT 'deferred ' || concat_ws(' ', trade_id, reason, retry_at - now(), last_class, last_message, attempts, charged) FROM settlement.deferred LIMIT 5",
		"SELECT 'unapplied ' || concat_ws(' ', trade_id, status, failures, last_failure) FROM settlement.unapplied LIMIT 5",
		"SELECT 'attempt ' || concat_ws(' ', trade_id, attempt, verb, outcome, class, phase, http_status, message) FROM settlement.attempts ORDER BY at DESC LIMIT 8";
	my $log = slurp_file($self->node->logfile);
	diag(join "\n", grep { defined } (split /\n/, $log)[-15 .. -1]);
}

1;
