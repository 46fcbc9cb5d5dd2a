set terminal svg size 840,360 font 'sans-serif,13' background rgb 'white'
set output output_file
set datafile separator '\t'
set title 'Queued trades settled per second (primary key only, nginx)'
set style fill solid 0.85 noborder
set boxwidth 0.7
set yrange [0:*]
set offsets 0, 0, graph 0.08, 0
set format y "%'.0f"
set grid ytics lc rgb '#dddddd'
set xtics nomirror scale 0
unset key
plot data using 0:2:xtic(1) with boxes lc rgb '#336791', \
	'' using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.7
