package Witness;

# The wallet's books inside the database, to compare them with the trade tables
# in SQL: schema witness, with
#   trades     view: the rows that should be settled, with the columns of public.trades
#   ledger     the wallet's postings
#   balances   the wallet's balances
#   expected   view: the postings that the settled trades should have made
#
#   my $witness = Witness->new(node => $node, wallet => $walletd, trades => 'SELECT * FROM trades');
#   $witness->read;
#
# The books are read from the wallet's SQLite file, past walletd itself: a million
# trades take less than a minute.  The wallet may run meanwhile, or be down.

use strict;
use warnings;

use IPC::Run ();

sub new
{
	my ($class, %options) = @_;
	my $self = bless { database => 'postgres', %options }, $class;
	$self->create;
	$self->trades($self->{trades}) if $self->{trades};
	return $self;
}

sub sql
{
	my ($self, $sql) = @_;
	return $self->{node}->safe_psql($self->{database}, $sql);
}

sub create
{
	my ($self) = @_;
	$self->sql(<<'SQL');
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS witness;
CREATE UNLOGGED TABLE IF NOT EXISTS witness.ledger (transfer bigint, kind text, trade_id text, settlement_id text,
                                                    account text, currency text, amount numeric);
CREATE UNLOGGED TABLE IF NOT EXISTS witness.balances (account text, currency text, amount numeric);
SQL
}

# The query that yields the trades.
sub trades
{
	my ($self, $query) = @_;
	$self->sql(<<"SQL");
SET client_min_messages = warning;
DROP VIEW IF EXISTS witness.trades CASCADE;
CREATE VIEW witness.trades AS $query;
CREATE VIEW witness.expected AS
SELECT t.trade_id::text AS trade_id, p.account, p.currency, sum(p.amount) AS amount
FROM (SELECT *, split_part(translate(symbol, '-_', '//'), '/', 1) AS base,
             split_part(translate(symbol, '-_', '//'), '/', 2) AS quote,
             coalesce(buyer_fee, 0) AS bf, coalesce(seller_fee, 0) AS sf
      FROM witness.trades WHERE settlement_status = 'SETTLED') AS t
CROSS JOIN LATERAL (VALUES
    (buyer_user_id, quote, -(price * quantity + bf)), (buyer_user_id, base, quantity),
    (seller_user_id, base, -quantity), (seller_user_id, quote, price * quantity - sf),
    ('exchange', quote, bf + sf)) AS p (account, currency, amount)
GROUP BY 1, 2, 3;
SQL
}

# Answer of the wallet's file to a query, as CSV.
sub wallet_command
{
	my ($self, $query) = @_;
	return [ 'sqlite3', '-readonly', '-csv', '-cmd', '.timeout 10000', $self->{wallet}{db}, $query ];
}

# Rows of a table from a command's output, or from a file.
sub copy_in
{
	my ($self, $table, $source, $options) = @_;
	my $err = '';
	my @psql = ([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $self->{node}->connstr($self->{database}),
		'-c', "COPY $table FROM STDIN" . ($options // '') ], '2>', \$err);
	IPC::Run::run(ref $source ? ($source, '|', @psql) : (shift @psql, '<', $source, @psql))
		or die "could not fill $table: $err\n";
}

# Read the wallet's books anew.
sub read
{
	my ($self) = @_;
	$self->sql('TRUNCATE witness.ledger, witness.balances');
	$self->copy_in('witness.ledger', $self->wallet_command(
		'SELECT t.id, t.kind, t.trade_id, t.settlement_id, p.account, p.currency, p.amount' .
		' FROM transfers t JOIN postings p ON p.transfer = t.id'), ' (FORMAT csv)');
	$self->copy_in('witness.balances', $self->wallet_command('SELECT account, currency, amount FROM balances'),
		' (FORMAT csv)');
	$self->sql('ANALYZE witness.ledger; ANALYZE witness.balances');
}

1;
