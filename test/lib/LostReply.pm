package LostReply;

# Trades that the wallet has booked without our knowing, and what becomes of them
# when nothing but its books can tell.

use strict;
use warnings;

use Settlement;
use Test::More;

use Exporter qw(import);
our @EXPORT = qw(lose_reply waits_for_the_books resolve_from_the_books);

# The first reply is lost; with forget, the key is forgotten too, so that to send
# it again pays twice.  More columns of the trade may be given.
sub lose_reply
{
	my ($s, $trade, %options) = @_;
	my @forget = delete $options{forget} ? (forget => \1) : ();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->faults({ match => { trade_id => $trade, times => 1 }, action => 'close', apply => \1, @forget });
	$s->trade($trade, %options);
	return $s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = '$trade' AND maybe_executed", 1, "the reply for $trade is lost");
}

# It was looked up, with this result, and waits for a person.
sub waits_for_the_books
{
	my ($s, $trade, $class, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $s->becomes("SELECT reason, last_class FROM settlement.deferred WHERE trade_id = '$trade' AND last_class = '$class'",
		"needs_lookup|$class", "$trade waits for the wallet's books", $seconds);
}

sub resolve_from_the_books
{
	my ($s, $trade) = @_;
	my ($id) = map { $_->{settlement_id} } $s->wallet->ledger("?trade_id=$trade");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($s->resolve($trade, 'SETTLED', $id, 'found in the books'), 'done', 'a person settles it from the books');
	is($s->effects_of($trade), 1, 'one effect');
}

1;
