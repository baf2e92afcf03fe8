"""On the path of processes that tests start: they draw no pictures either."""

import blank_pictures

blank_pictures.install()
