package Rehearsal;

# Is what a run says when something is wrong in working order?  It is seldom
# needed, and must not fail then for a mistake of its own.

use strict;
use warnings;

use Calm;
use Report;

my $nobody = 'never-inserted';

sub of_bad_news
{
	my ($arena, $ledgers, $options, $compare) = @_;
	my $state = Calm::state_of($arena);
	$arena->violation("the state of things cannot be told: $state") if $state =~ /failed: ERROR/ || $state !~ /^status /;
	for my $query (q{SELECT min(trade_id) FROM public.trades WHERE settlement_status = 'SETTLED'},
		'SELECT min(trade_id) FROM public.trades JOIN settlement.dlq USING (trade_id)')
	{
		my $story = $ledgers->timeline($arena->ask($query));
		$arena->violation("a story has a gap: $story") if $story =~ /\(no answer|^Error/m || $story !~ /^-- timeline$/m;
	}
	of_a_loss($arena, $options, $compare);
}

# A trade that was acknowledged and is nowhere.
sub of_a_loss
{
	my ($arena, $options, $compare) = @_;
	$arena->note(ack => $nobody);
	my ($found, $stories) = $compare->();
	open my $out, '>', \my $text or die $!;
	my $ok = Report::write($out, $arena, $options, $found, $stories, 0);
	close $out;
	$arena->violation("a loss would not be told: $text")
		if $ok || $text !~ /^VIOLATION lost 1: $nobody$/m || $text !~ /^timeline of $nobody$/m;
}

1;
