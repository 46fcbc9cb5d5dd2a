package Tables;

# A third attached table, which comes and goes, with trades of its own.  Before
# it is dropped its rows are kept in witness.gone: they were committed, and what
# became of them must still be known in the end.

use strict;
use warnings;

use Schedule;

sub catalogue
{
	return (
		{ group => 'table', name => 'extra table', weight => 5, play => \&play,
			draw => sub { (act => Schedule::one_of(qw(create insert insert detach attach drop drop)), rows => 1 + int rand 150) },
			each => [ map { { act => $_, rows => 20 } } qw(create insert detach insert attach drop create) ] });
}

sub play
{
	my ($arena, $parameters) = @_;
	my $act = $parameters->{act};
	my $exists = $arena->ask("SELECT to_regclass('public.extra') IS NOT NULL");
	$act = $exists ? ($act eq 'create' ? 'insert' : $act) : 'create';
	__PACKAGE__->can($act)->($arena, $parameters->{rows});
}

sub create
{
	my ($arena, $rows) = @_;
	$arena->ask('CREATE TABLE public.extra (LIKE public.trades INCLUDING DEFAULTS, PRIMARY KEY (trade_id))');
	$arena->ask('GRANT INSERT ON public.extra TO engine');
	$arena->ask(q{SELECT count(*) FROM settlement.attach('public.extra')});
	insert($arena, $rows);
}

# Not acknowledged unless attached: then nobody settles them.
sub insert
{
	my ($arena, $rows) = @_;
	my $name = 'x' . ++$arena->{n_extra};
	return unless is_attached($arena);
	my @ids = map { "$name-$_" } 1 .. $rows;
	$arena->note(maybe => @ids);
	$arena->ask(<<SQL);
INSERT INTO public.extra (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity)
SELECT '$name-' || i, 'BTC/USDT', 'b' || i, 's' || i, 'u' || i % 20, 'u' || (i + 7) % 20, 100 + i, 0.001
FROM generate_series(1, $rows) i
SQL
	$arena->note(ack => @ids);
}

sub is_attached
{
	my ($arena) = @_;
	return $arena->ask("SELECT count(*) FROM settlement.attached WHERE relid = to_regclass('public.extra') AND detached_at IS NULL");
}

sub detach
{
	my ($arena) = @_;
	$arena->ask("SELECT settlement.detach('public.extra')") if is_attached($arena);
}

sub attach
{
	my ($arena) = @_;
	$arena->ask(q{SELECT count(*) FROM settlement.attach('public.extra')}) unless is_attached($arena);
}

# Finished or not.
sub drop { my ($arena) = @_; keep_rows($arena, 'DROP TABLE public.extra') }

sub keep_rows
{
	my ($arena, $then) = @_;
	$arena->ask(<<SQL);
DO \$\$
BEGIN
	LOCK TABLE public.extra IN ACCESS EXCLUSIVE MODE;
	INSERT INTO witness.gone SELECT * FROM public.extra;
	$then;
END \$\$
SQL
}

# For the comparison: all rows in witness.gone, with the outcomes that found no
# row.  These discrepancies were to be expected; others stay.
sub settle_accounts
{
	my ($arena) = @_;
	keep_rows($arena, 'DROP TABLE public.extra') if $arena->ask("SELECT to_regclass('public.extra') IS NOT NULL");
	$arena->ask(<<'SQL');
WITH expected AS (
	DELETE FROM settlement.discrepancies d USING witness.gone g
	WHERE d.trade_id = g.trade_id AND d.kind = 'trade_row_gone'
	RETURNING d.*)
UPDATE witness.gone g SET settlement_status = d.details ->> 'status', settlement_id = d.details ->> 'settlement_id'
FROM (SELECT DISTINCT ON (trade_id) * FROM expected ORDER BY trade_id, (details ->> 'status') = 'SETTLED' DESC, at DESC) d
WHERE d.trade_id = g.trade_id AND g.settlement_status IN ('PENDING', 'FAILED', 'UNKNOWN')
SQL
}

1;
