"""What a training method memorises, and what surrounds that: the studies behind ``bat-fast study``.

`subset` says who trains which model, `lean` trains one, `jobs` all of them in as many processes as there
are, `folder` keeps what they answered, `estimate` makes memorisation and influence of it, `scores` reads
values that others have published.
"""
