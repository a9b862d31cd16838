"""What a browser makes of a page, to be compared with what should be in it."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """What a browser makes of a page: the elements with their attributes, and the texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.texts.append(data)
